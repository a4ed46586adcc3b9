"""MLflow runs of updates.

A failure of MLflow never costs an update: if the store cannot be reached or refuses a request, one
warning is printed and the stage goes on. The metrics are in Git, and `renate-stages publish` can log
them later. Only an invalid store URI is an error, which is raised before any work.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import posixpath
import re
import sys
import time
from collections import Counter
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
    """The names and tags by which a run is found.

    Args:
        experiment: Name of the MLflow experiment, such as the project's slug.
        name: The run's name in MLflow's pages, such as "update-3".
        key: SHA-256 of the update's inputs; all attempts at an update have the same key.
        tags: More tags of a new run: update number, parent's hash, `provenance_tags`.
        description: Markdown for the run's page; if empty, it is made from name and tags.
        experiment_tags: Tags of the experiment if this run creates it.
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
        number: Number of the trial in its search.
        parameters: Its configuration as strings.
        points: Its curves: metrics by name for each step.
        tags: Status and other tags.
        status: MLflow's status: FINISHED, FAILED or KILLED.
        started, ended: Milliseconds since 1970.
        name: Name of the run; if empty, "trial" and its number.
    """

    number: int
    parameters: Mapping[str, str]
    points: Mapping[int, Mapping[str, float]]
    tags: Mapping[str, str]
    status: Literal["FINISHED", "FAILED", "KILLED"]
    started: int
    ended: int
    name: str = ""


class Tracker:
    """Records parameters, metrics, artifacts and tags of one run.

    Made by `new_run` and `reopened_run`. Its methods queue a command and return at once; all queued
    commands are written before the run closes.
    """

    def __init__(
        self, process: SideProcess | Recording | None = None, store: Store | None = None
    ) -> None:
        self._process = process
        self._store = store
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or `None` if there is no run; waits until the store is open."""
        if self._process is None:
            return None
        run_id = self._process.wait_for("run_id")
        self._warn()
        return run_id

    @property
    def found(self) -> bool:
        """Whether a run is open; waits until the store is open."""
        return self.run_id is not None

    @property
    def started(self) -> bool:
        """Whether a run was requested; does not wait."""
        return self._process is not None

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log parameters, once per name.

        Args:
            parameters: Values by name; nested mappings give names with dots. Values are converted to
                strings without secrets in URLs. Values longer than MLflow's limit of 6000 characters
                are cut; then all values are also written to the artifact `parameters.json`.
        """
        flat = {name: _as_text(value) for name, value in _flat(parameters)}
        self._send({"do": "parameters", "values": flat})

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one point of each metric, in one call to the store.

        Args:
            metrics: Numbers by name; nested mappings give names with dots. `None` is left out.
                Infinite values are recorded as NaN, because MLflow would plot them as 1.8e308.
            step: The step on the curves, such as the epoch; 0 if not given.
        """
        flat = {name: float(value) for name, value in _flat(metrics) if value is not None}
        values = {name: v if math.isfinite(v) else math.nan for name, v in flat.items()}
        now = int(time.time() * 1000)  # milliseconds
        self._send({"do": "metrics", "values": values, "step": step or 0, "timestamp": now})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder.

        Args:
            path: The file or folder. It is read at any time before the run closes; do not change it
                until then.
            folder: Target folder among the run's artifacts; `None`: their root.
        """
        self._send({"do": "artifact", "path": str(path.absolute()), "folder": folder})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; existing tags are replaced."""
        self._send({"do": "tags", "values": _texts(tags)})

    def log_trial(self, trial: TrialRun) -> None:
        """Record a finished trial as a separate run that is nested under this one."""
        texts = {"parameters": _texts(trial.parameters), "tags": _texts(trial.tags)}
        self._send({"do": "trial", **asdict(trial), **texts})

    def set_trial_tags(self, number: int, tags: Mapping[str, Any]) -> None:
        """Set tags of a trial that was recorded earlier."""
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
        """Print the first problem in one line; later problems are most likely its consequences."""
        if self._warned or self._process is None or not self._process.problems:
            return
        self._warned = True
        where = self._store.shown if self._store else "MLflow"
        problem = shown(self._process.problems[0])
        line = f"warning: this run is missing or incomplete in MLflow ({where}): {problem}"
        print(line, file=sys.stderr, flush=True)


@contextmanager
def new_run(
    project_root: Path, identity: RunIdentity, *, enabled: bool = True
) -> Iterator[Tracker]:
    """Record a new attempt at an update.

    The tag `renate.attempt` counts the attempts with the same key. Earlier attempts with the status
    RUNNING are marked KILLED: the stage has the project's lock, so none of them can be running. The
    run ends as FINISHED (with the tag `renate.complete`), as FAILED on an exception (with its
    message in `renate.error`), or as KILLED on Ctrl-C, `SystemExit` or the death of the process.

    Args:
        project_root: The project's folder.
        identity: Name, key and tags of the run.
        enabled: If `False`, the tracker does nothing and no process is started.

    Yields:
        The tracker.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
    """
    store = store_of(project_root) if enabled else None
    tracker = _opened("new", store, identity, run_tags(identity)) if store else Tracker()
    with _closing(tracker, {"renate.complete": "true"}):
        yield tracker


@contextmanager
def reopened_run(
    project_root: Path, identity: RunIdentity, *, enabled: bool = True
) -> Iterator[Tracker]:
    """Add to the latest complete attempt with the identity's key.

    An attempt is complete if `new_run` ended it as FINISHED; a later attempt that failed did not
    make the present results. The run has the status RUNNING within the block and ends as with
    `new_run`.

    Args:
        project_root: The project's folder.
        identity: Identity of the run; only experiment and key are used.
        enabled: If `False`, the tracker does nothing and no process is started.

    Yields:
        The tracker; if there is no such run, its `found` is false and it records nothing.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
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
    """Return the arguments with which a writer finds or creates a run."""
    return {
        "store": store.described(identity.experiment),
        "experiment": identity.experiment,
        "experiment_tags": dict(identity.experiment_tags),
        "name": identity.name,
        "key": identity.key,
        "tags": dict(tags),
    }


def run_tags(identity: RunIdentity) -> dict[str, str]:
    """Return the identity's tags and those that MLflow shows as columns."""
    given = {name: str(value) for name, value in identity.tags.items()}
    tags = {
        "mlflow.source.name": "renate-stages",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": identity.description or _description(identity.name, given),
    }
    with suppress(KeyError, OSError, ImportError):  # the user of a container may have no name
        tags["mlflow.user"] = getpass.getuser()
    for ours, column in (("git.commit", "commit"), ("git.branch", "branch")):
        if ours in given:
            tags[f"mlflow.source.git.{column}"] = given[ours]
    return {**tags, **given}


def _description(name: str, tags: Mapping[str, str]) -> str:
    lines = [f"- {tag}: `{tags[tag]}`" for tag in sorted(tags) if not tag.startswith("mlflow.")]
    return "\n".join([f"**{name}**", "", *lines])


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, with names that are valid in MLflow and distinct.

    Names that would become the same, such as those of the slices `<5` and `>5`, end with a digest of
    the original name, which is the same in every update.
    """
    leaves = list(_leaves(values))
    valid = [posixpath.normpath(re.sub(r"[^\w.\- :/]", "_", name)) for name, _ in leaves]
    count = Counter(valid)
    for name, (original, value) in zip(valid, leaves, strict=True):
        digest = hashlib.sha256(original.encode()).hexdigest()[:6]
        yield (name if count[name] == 1 else f"{name}-{digest}"), value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: hide_secrets(str(value)) for name, value in values.items()}


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return hide_secrets(json.dumps(value, default=str, ensure_ascii=False))
    return hide_secrets(str(value))
