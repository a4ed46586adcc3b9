"""MLflow runs of updates.

What happens when MLflow fails: an update is never lost to its tracking. If the store cannot be
reached or refuses something, one line on stderr says so, and the stage goes on without (the
metrics are in Git anyway; `renate-stages publish` writes them later). Only a store's address that
cannot be right is an error, raised before any work.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import posixpath
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from renate_stages.errors.redaction import hide_secrets, shown
from renate_stages.tracking.location import Store, store_of
from renate_stages.tracking.recording import FILE_VARIABLE, Recording
from renate_stages.tracking.side_process import SideProcess


@dataclass(frozen=True)
class RunIdentity:
    """What makes a run findable.

    Args:
        experiment: Name of the MLflow experiment, such as the project's slug.
        name: The run's name in MLflow's pages, such as "update-3".
        key: SHA-256 of the update's inputs; attempts at the same update share it.
        tags: More tags of a new run: update number, parent's hash, `provenance_tags`.
        description: Markdown shown on the run's page; made from name and tags if empty.
        experiment_tags: Of the experiment, where this run is its first.
    """

    experiment: str
    name: str
    key: str
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    experiment_tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRun:
    """A trial of a search.

    Args:
        number: Its own among those of the run that it is nested under.
        parameters: Its configuration, as text.
        points: Its curves: metrics by name, for each step.
        tags: Its status, and what else it is found by.
        status: MLflow's: FINISHED, FAILED or KILLED.
        started, ended: Milliseconds since 1970.
    """

    number: int
    parameters: Mapping[str, str]
    points: Mapping[int, Mapping[str, float]]
    tags: Mapping[str, str]
    status: Literal["FINISHED", "FAILED", "KILLED"]
    started: int
    ended: int


class Tracker:
    """Records parameters, metrics, artifacts and tags of one run.

    Made by `new_run` and `reopened_run`. Its methods queue and return at once; what is queued is
    written by the time the run closes.
    """

    def __init__(
        self, process: SideProcess | Recording | None = None, store: Store | None = None
    ) -> None:
        self._process = process
        self._store = store
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or `None` without one; waits until the store is open."""
        if self._process is None:
            return None
        run_id = self._process.wait_for("run_id")
        self._warn()
        return run_id

    @property
    def found(self) -> bool:
        """Whether there is a run that records; waits until the store is open."""
        return self.run_id is not None

    @property
    def started(self) -> bool:
        """Whether there may be a run that records, as far as is known without waiting."""
        return self._process is not None

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log parameters, once per name.

        Args:
            parameters: Values by name; nested mappings give names with dots. Values become
                strings, without secrets in URLs. Those longer than MLflow keeps (6000
                characters) are cut, and then all are also written, whole, to the artifact
                `parameters.json`.
        """
        flat = {name: _as_text(value) for name, value in _flat(parameters)}
        self._send({"do": "parameters", "values": flat})

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one point of each metric, in one call to the store.

        Args:
            metrics: Numbers by name; nested mappings give names with dots. `None` is left out.
                Infinite values are recorded as NaN: MLflow would draw them as 1.8e308.
            step: The points' place on the curves, such as the epoch; 0 if not given.
        """
        flat = {name: float(value) for name, value in _flat(metrics) if value is not None}
        values = {name: v if math.isfinite(v) else math.nan for name, v in flat.items()}
        now = int(time.time() * 1000)  # milliseconds
        self._send({"do": "metrics", "values": values, "step": step or 0, "timestamp": now})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder.

        Args:
            path: It is read some time before the run closes; leave it as it is until then.
            folder: Where to put it among the run's artifacts; their root if `None`.
        """
        self._send({"do": "artifact", "path": str(path.absolute()), "folder": folder})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; a tag that exists is replaced."""
        self._send({"do": "tags", "values": _texts(tags)})

    def log_trial(self, trial: TrialRun) -> None:
        """Record a trial that has ended as a run of its own, nested under this one."""
        texts = {"parameters": _texts(trial.parameters), "tags": _texts(trial.tags)}
        self._send({"do": "trial", **asdict(trial), **texts})

    def set_trial_tags(self, number: int, tags: Mapping[str, Any]) -> None:
        """Set tags of a trial that is recorded."""
        self._send({"do": "trial_tags", "number": number, "values": _texts(tags)})

    def _send(self, command: dict[str, Any]) -> None:
        if self._process is not None:
            self._process.send(command)
            self._warn()

    def _close(self, status: str, tags: dict[str, str], ended: int | None = None) -> None:
        if self._process is not None:
            then = {} if ended is None else {"ended": ended}
            self._process.close({"do": "close", "status": status, "tags": tags, **then})
            self._warn()

    def _warn(self) -> None:
        """Print the first problem, in one line; the rest are most likely its consequences."""
        if self._warned or self._process is None or not self._process.problems:
            return
        self._warned = True
        where = self._store.shown if self._store else "MLflow"
        problem = shown(self._process.problems[0])
        line = f"warning: this run is not, or not fully, recorded in MLflow ({where}): {problem}"
        print(line, file=sys.stderr, flush=True)


@contextmanager
def new_run(
    project_root: Path, identity: RunIdentity, *, enabled: bool = True
) -> Iterator[Tracker]:
    """Record a new attempt at an update.

    The tag `renate.attempt` counts the attempts with the same key. Attempts that still seem to be
    running are marked KILLED: a stage holds the project's lock, so nobody is running them. The
    run ends as FINISHED (then it also has the tag `renate.complete`), FAILED on an exception
    (`renate.error` says which) or KILLED on Ctrl-C, `SystemExit` or the death of the process.

    Args:
        project_root: The project's folder.
        identity: What the run is called and found by.
        enabled: With `False` the tracker does nothing and no process is started.

    Yields:
        The tracker.

    Raises:
        TrackingUriError: `MLFLOW_TRACKING_URI` is no store that MLflow can use.
    """
    store = store_of(project_root) if enabled else None
    tracker = _opened("new", store, identity, run_tags(identity)) if store else Tracker()
    with _closing(tracker, {"renate.complete": "true"}):
        yield tracker


@contextmanager
def reopened_run(
    project_root: Path, identity: RunIdentity, *, enabled: bool = True
) -> Iterator[Tracker]:
    """Record more in the latest complete attempt with the identity's key.

    Complete is an attempt that `new_run` ended as FINISHED: a later one that failed did not make
    the results at hand. The run is RUNNING meanwhile and ends as with `new_run`. Of the identity,
    only experiment and key matter.

    Args:
        project_root: The project's folder.
        identity: What the run is found by.
        enabled: With `False` the tracker does nothing and no process is started.

    Yields:
        The tracker; if there is no such run, its `found` is false and it records nothing.

    Raises:
        TrackingUriError: `MLFLOW_TRACKING_URI` is no store that MLflow can use.
    """
    store = store_of(project_root) if enabled else None
    tracker = Tracker() if not store or store.is_empty else _opened("reopen", store, identity, {})
    with _closing(tracker, {}):
        yield tracker


@contextmanager
def _closing(tracker: Tracker, tags: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = " ".join(hide_secrets(f"{type(error).__name__}: {error}").split())
        tracker._close("FAILED", {"renate.error": message})
        raise
    except BaseException:
        tracker._close("KILLED", {})
        raise
    tracker._close("FINISHED", tags)


def _opened(mode: str, store: Store, identity: RunIdentity, tags: dict[str, str]) -> Tracker:
    recording = os.environ.get(FILE_VARIABLE)
    process = Recording(Path(recording), store.root) if recording else SideProcess(store.root)
    tracker = Tracker(process, store)
    tracker._send({"do": "open", "mode": mode, **open_command(store, identity, tags)})
    return tracker


def open_command(store: Store, identity: RunIdentity, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return what a writer needs to find or make a run."""
    return {
        "store": store.described(identity.experiment),
        "experiment": identity.experiment,
        "experiment_tags": dict(identity.experiment_tags),
        "name": identity.name,
        "key": identity.key,
        "tags": dict(tags),
    }


def run_tags(identity: RunIdentity) -> dict[str, str]:
    """Return the identity's tags and those that MLflow's pages make columns of."""
    given = {name: str(value) for name, value in identity.tags.items()}
    tags = {
        "mlflow.source.name": "renate-stages",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": identity.description or _description(identity.name, given),
    }
    with suppress(KeyError, OSError, ImportError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    for ours, column in (("git.commit", "commit"), ("git.branch", "branch")):
        if ours in given:
            tags[f"mlflow.source.git.{column}"] = given[ours]
    return {**tags, **given}


def _description(name: str, tags: Mapping[str, str]) -> str:
    lines = [f"- {tag}: `{tags[tag]}`" for tag in sorted(tags) if not tag.startswith("mlflow.")]
    return "\n".join([f"**{name}**", "", *lines])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with names that MLflow accepts."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield posixpath.normpath(re.sub(r"[^\w.\- :/]", "_", name)), value


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: hide_secrets(str(value)) for name, value in values.items()}


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return hide_secrets(json.dumps(value, default=str, ensure_ascii=False))
    return hide_secrets(str(value))
