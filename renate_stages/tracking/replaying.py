"""Log a job's records in the project's own MLflow store, with their original times.

Invalid records are skipped with one warning, so that a problem with tracking never costs an update.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from renate_stages.errors.redaction import shown
from renate_stages.tracking import records
from renate_stages.tracking.location import Store, store_of
from renate_stages.tracking.records import AnyRecord
from renate_stages.tracking.runs import RunIdentity, Tracker, open_command, run_tags
from renate_stages.tracking.side_process import SideProcess


def replay(
    project_root: Path,
    recording: Path,
    identity: Callable[[str], RunIdentity],
    *,
    outputs: Mapping[str, Path] | None = None,
    complete: Mapping[str, str] | None = None,
) -> None:
    """Log a recorded run as a new attempt.

    If MLflow refuses a request, or if a record is not allowed, one warning is printed and no error is
    raised.

    Args:
        project_root: The project's folder.
        recording: The downloaded file, one record per line.
        identity: Returns the identity of the run for the key in the recording; the run is refused if
            the identity has another key.
        outputs: The job's verified outputs by the job's name for each; only these files can be logged
            as artifacts.
        complete: Tags of a run whose results were applied. None: there are no results, so a run that
            claims to be finished is marked as failed.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
    """
    replayed = _Replayed(store_of(project_root), identity, outputs or {}, complete)
    refused: list[str] = []
    number = 0
    for number, line in enumerate(_lines(recording), start=1):
        try:
            if number > records.RECORDS or line is None:
                raise ValueError("the recording is too long; the rest of it was not read")
            replayed.take(records.parse(line))
        except ValueError as error:
            refused.append(f"record {number}: {error}")
            if line is None or number > records.RECORDS:
                break
    replayed.end()
    if refused:
        count = f"{len(refused)} of {number} records of the job were refused"
        warning = shown(f"warning: {count} and are not in MLflow. The first: {refused[0]}")
        print(warning, file=sys.stderr, flush=True)


def _lines(path: Path) -> Iterator[bytes | None]:
    """Yield the lines of a file; None for a line that is too long.

    An incomplete last line, which a killed stage may leave, is skipped.
    """
    with path.open("rb") as stream:
        while line := stream.readline(records.LINE_BYTES + 1):
            if len(line) > records.LINE_BYTES:
                yield None
            elif line.endswith(b"\n"):
                yield line


@dataclass
class _Replayed:
    """The run of a recording that is being read."""

    store: Store
    identity: Callable[[str], RunIdentity]
    outputs: Mapping[str, Path]
    complete: Mapping[str, str] | None
    tracker: Tracker | None = None
    has_ended: bool = False
    trials: set[int] = field(default_factory=set)

    def take(self, record: AnyRecord) -> None:
        """Log a record.

        Raises:
            ValueError: If the record is not allowed at this point.
        """
        if isinstance(record, records.Open):
            self._open(record)
            return
        if self.tracker is None or self.has_ended:
            raise ValueError(f"{record.do}: no run is open")
        match record:
            case records.Close():
                self._close(record)
            case records.Artifact():
                for path, folder in self._files(record):
                    self.tracker.log_artifact(path, folder)
            case _:
                if isinstance(record, records.Trial):
                    self.trials.add(record.number)
                elif isinstance(record, records.TaggedTrial) and record.number not in self.trials:
                    raise ValueError(f"trial_tags.number: there is no trial {record.number}")
                self.tracker._send(record.model_dump(exclude={"at"}))

    def end(self) -> None:
        """End the run as KILLED if the recording does not end it."""
        if self.tracker is not None and not self.has_ended:
            self.tracker._close("KILLED", {})

    def _open(self, record: records.Open) -> None:
        if self.tracker is not None:
            raise ValueError("open: a run is open already, but a stage logs only one run")
        identity = self.identity(record.key)
        if identity.key != record.key:
            raise ValueError(f"open.key: expected {identity.key}, found {record.key}")
        self.tracker = Tracker(SideProcess(self.store.root), self.store)
        opening = open_command(self.store, identity, run_tags(identity))
        self.tracker._send({"do": "open", "mode": "new", "started": record.at, **opening})

    def _close(self, record: records.Close) -> None:
        assert self.tracker is not None
        self.has_ended = True
        if record.status == "FINISHED" and self.complete is not None:
            tags = {**self.complete, "renate.complete": "true"}
            self.tracker._close("FINISHED", tags, ended=record.at)
            return
        tags = {} if record.error is None else {"renate.error": record.error}
        status = "FAILED" if record.status == "FINISHED" else record.status
        self.tracker._close(status, tags, ended=record.at)

    def _files(self, record: records.Artifact) -> Iterator[tuple[Path, str | None]]:
        """Yield the files of an artifact record, each with its folder among the artifacts."""
        begin = f"{record.path}/"
        outputs = {
            name: path
            for name, path in self.outputs.items()
            if name == record.path or name.startswith(begin)
        }
        if not outputs:
            raise ValueError(f"artifact.path: the job has no output {record.path!r}")
        for name, path in sorted(outputs.items()):
            if path.is_symlink() or not path.is_file():
                raise ValueError(f"artifact.path: {name!r} is not a regular file")
            inside = name.removeprefix(begin).rpartition("/")[0] if name != record.path else ""
            yield path, "/".join(part for part in (record.folder, inside) if part) or None
