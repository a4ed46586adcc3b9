"""The separate process that imports MLflow and writes to it, started by `side_process.py`.

It reads commands from stdin, one JSON object per line (`{"do": "metrics", ...}`), and answers on
stdout: `{"run_id": ...}` once for `open`, `{"problem": ...}` for a command that failed,
`{"closed": true}` at the end. If its parent ends without `close`, it marks the run KILLED.

It is run by file name and imports nothing from this package. So it does not depend on how the parent
found the package, and does not load other modules of it.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

PARAMETER_LENGTH = 6000  # MLflow's limit for a parameter's value, in characters
TAG_LENGTH = 8000  # MLflow's limit for a tag's value, in characters
ENTITIES_PER_CALL = 100  # the smallest of MLflow's limits for one call
FAILURES_IN_A_ROW = 3  # number of failures after which nothing more is sent to the store
PARENT_CHECK = 1.0  # seconds between checks whether the parent is alive

# A stage must not hang on a dead server, so these limits are seconds instead of MLflow's many
# minutes. Values that the user has set are kept.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # not MLflow's GenAI pages
TELEMETRY_OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

Command = dict[str, Any]
Tags = dict[str, str]
Reply = Callable[[dict[str, Any]], None]


class Writer:
    """Executes commands on one run of an MLflow store."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.run_id: str | None = None
        self.trials: dict[int, str] = {}  # id of the trial's run by the trial's number
        self.failures = 0
        self.lost = False

    @property
    def verbs(self) -> dict[str, Callable[..., None]]:
        """The supported commands; any other command is refused."""
        return {
            "open": self.open,
            "parameters": self.parameters,
            "metrics": self.metrics,
            "tags": self.tags,
            "trial": self.trial,
            "trial_tags": self.trial_tags,
            "artifact": self.artifact,
            "close": self.close,
        }

    def follow(self, commands: Iterable[Command]) -> None:
        """Execute all commands; report failures and continue with the next command."""
        for command in commands:
            if not self.carry_out(dict(command)):
                return
        if self.run_id:  # the parent ended without `close`
            self.carry_out({"do": "close", "status": "KILLED", "tags": {}})

    def carry_out(self, command: Command) -> bool:
        """Execute one command; return whether more commands can follow."""
        verb = str(command.pop("do", None))
        if self.lost and verb != "close":
            return True
        try:
            if verb not in self.verbs:
                raise ValueError(f"expected one of {', '.join(self.verbs)}")
            self.verbs[verb](**command)
            self.failures = 0
        except Exception as error:  # noqa: BLE001 - the parent reports any failure
            self.failures += 1
            no_response = _no_response(error)
            self.lost = self.failures >= FAILURES_IN_A_ROW or no_response is not None
            self.reply({"problem": f"{verb}: {no_response or _one_line(error)}"})
            if verb == "open":
                self.reply({"run_id": None})
        return verb != "close" and self.run_id is not None

    def open(
        self,
        *,
        mode: str,
        store: dict[str, Any],
        experiment: str,
        experiment_tags: Tags,
        name: str,
        key: str,
        tags: Tags,
        started: int | None = None,
    ) -> None:
        """Open a new attempt (mode "new") or the latest complete one (mode "reopen")."""
        with self._connected(store):
            place = store["artifact_location"], experiment_tags
            experiment_id = self._experiment_id(experiment, *place, create=mode == "new")

        attempts = self._attempts(experiment_id, key) if experiment_id else []
        if mode == "new" and experiment_id:
            tags = {**tags, "renate.key": key, "renate.attempt": str(len(attempts) + 1)}
            self._start(experiment_id, name, tags, attempts, started)
        else:
            self._restart(attempts)
        self.reply({"run_id": self.run_id})

    @contextmanager
    def _connected(self, store: dict[str, Any]) -> Iterator[None]:
        """Import MLflow and open the store; if it is a file, it is locked within the block."""
        with _heavy_imports():
            from mlflow import MlflowClient

            uri, database = store["uri"], store["database"]
            with _locked(Path(store["lock"])) if database else nullcontext():
                if database:
                    _make_database(Path(database))
                _check_connection(uri)
                self.client = MlflowClient(tracking_uri=uri)  # imports the packages for this store
                yield

    def _start(
        self,
        experiment_id: str,
        name: str,
        tags: Tags,
        attempts: list[Any],
        started: int | None = None,
    ) -> None:
        for run in attempts:
            if run.info.status == "RUNNING" and run.info.lifecycle_stage == "active":
                self.client.set_terminated(run.info.run_id, "KILLED")
        tags = {key: value[:TAG_LENGTH] for key, value in tags.items()}
        run = self.client.create_run(experiment_id, started, tags, run_name=name)
        self.run_id, self.experiment_id = run.info.run_id, experiment_id

    def _restart(self, attempts: list[Any]) -> None:
        complete = [
            run
            for run in attempts
            if run.data.tags.get("renate.complete") == "true"
            and run.info.lifecycle_stage == "active"
        ]
        if not complete:
            return
        latest = max(complete, key=lambda run: int(run.data.tags["renate.attempt"]))
        self.client.update_run(latest.info.run_id, status="RUNNING")
        self.run_id = latest.info.run_id
        if "renate.error" in latest.data.tags:
            self.client.delete_tag(latest.info.run_id, "renate.error")

    def _experiment_id(
        self, name: str, artifact_location: str | None, tags: Tags, *, create: bool
    ) -> str | None:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None and not create:
            return None
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise ValueError(
                f"the experiment '{name}' was deleted in MLflow; restore it with `mlflow "
                f"experiments restore -x {experiment.experiment_id}`, or delete it permanently"
            )
        if experiment is not None:
            return experiment.experiment_id
        try:
            tags = {**EXPERIMENT_TAGS, **tags}
            return self.client.create_experiment(name, artifact_location, tags)
        except MlflowException:  # another process may have created it first
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return experiment.experiment_id

    def _attempts(self, experiment_id: str, key: str) -> list[Any]:
        from mlflow.entities import ViewType

        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(
                [experiment_id],
                filter_string=f"tags.`renate.key` = '{key}'",
                run_view_type=ViewType.ALL,  # deleted runs too, so that no number is used twice
                page_token=token,
            )
            runs.extend(page)
            token = page.token
            if not token:
                return runs

    def parameters(self, values: dict[str, str]) -> None:
        """Log parameters; if long values are cut, also write all values to an artifact."""
        from mlflow.entities import Param

        for part in _parts(values.items()):
            params = [Param(key, value[:PARAMETER_LENGTH]) for key, value in part]
            self.client.log_batch(self._run(), params=params)
        if any(len(value) > PARAMETER_LENGTH for value in values.values()):
            self.client.log_dict(self._run(), values, "parameters.json")

    def metrics(self, values: dict[str, float], step: int, timestamp: int) -> None:
        """Log one point of each metric."""
        from mlflow.entities import Metric

        for part in _parts(values.items()):
            points = [Metric(key, value, timestamp, step) for key, value in part]
            self.client.log_batch(self._run(), metrics=points)

    def tags(self, values: dict[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        for part in _parts(values.items()):
            tags = [RunTag(key, value[:TAG_LENGTH]) for key, value in part]
            self.client.log_batch(self._run(), tags=tags)

    def trial(
        self,
        *,
        number: int,
        parameters: dict[str, str],
        points: dict[str, dict[str, float]],
        tags: Tags,
        status: str,
        started: int,
        ended: int,
        name: str = "",
    ) -> None:
        """Log a finished trial as a nested run; its points are spaced evenly over its duration."""
        from mlflow.entities import Metric, Param

        nested = {**tags, "mlflow.parentRunId": self._run()}
        run = self.client.create_run(
            self.experiment_id, start_time=started, tags=nested, run_name=name or f"trial {number}"
        )
        self.trials[number] = run.info.run_id
        for part in _parts(parameters.items()):
            params = [Param(name, value[:PARAMETER_LENGTH]) for name, value in part]
            self.client.log_batch(run.info.run_id, params=params)
        for place, (step, values) in enumerate(points.items(), start=1):
            when = started + (ended - started) * place // len(points)
            metrics = [Metric(name, value, when, int(step)) for name, value in values.items()]
            self.client.log_batch(run.info.run_id, metrics=metrics)
        self.client.set_terminated(run.info.run_id, status, end_time=ended)

    def trial_tags(self, *, number: int, values: Tags) -> None:
        """Set tags of a trial's run."""
        for name, value in values.items():
            self.client.set_tag(self.trials[number], name, value[:TAG_LENGTH])

    def artifact(self, path: str, folder: str | None) -> None:
        """Copy a file, or the contents of a folder, to the run's artifacts."""
        log = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        log(self._run(), path, folder)

    def close(self, status: str, tags: Tags, ended: int | None = None) -> None:
        """End the run."""
        self.tags(tags)
        self.client.set_terminated(self._run(), status, end_time=ended)
        self.reply({"closed": True})

    def _run(self) -> str:
        if self.run_id is None:
            raise RuntimeError("no run is open")
        return self.run_id


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = list(items)
    for start in range(0, len(items), ENTITIES_PER_CALL):
        yield items[start : start + ENTITIES_PER_CALL]


@contextmanager
def _heavy_imports() -> Iterator[None]:
    """Do the same as `renate_stages.processes.heavy_imports`, which cannot be imported here."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield


def _make_database(database: Path) -> None:
    """Create a missing database; the caller holds the lock.

    It is created under a temporary name: if the creation is killed, or two processes create it at
    once, the database is broken for all later processes.
    """
    from mlflow import MlflowClient

    if database.is_file() and database.stat().st_size > 0:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    draft = database.with_name(f"{database.name}.draft")
    draft.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
    draft.replace(database)


def _check_connection(uri: str) -> None:
    """Connect to a database once, because MLflow would retry an unreachable one for 100 seconds."""
    if uri.partition("+")[0].partition(":")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()


def _no_response(error: BaseException | None) -> str | None:
    """Return a message if the server does not respond, so that further requests only cost time."""
    from requests.exceptions import RequestException

    while error is not None:
        if isinstance(error, RequestException):
            return f"the server does not respond ({type(error).__name__})"
        error = error.__cause__ or error.__context__
    return None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _commands(parent: int) -> Iterator[Command]:
    """Yield commands until the pipe is closed or the parent ends.

    A thread reads the pipe, so that the parent does not wait while MLflow is imported. The parent
    is checked too, because processes that it forked keep the pipe open after its death.
    """
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=PARENT_CHECK)
        except Empty:
            if os.getppid() != parent:
                return
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the end, or a line that was cut off by an interrupt
            return


def main(writer: Callable[[Reply], Writer] = Writer) -> None:
    """Execute the commands of the process whose id is the first argument."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # MLflow's own output must not get into the answers

    def reply(message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # if the parent has ended, still write the run's status
            print(json.dumps(message), file=answers)

    os.environ.update(TELEMETRY_OFF)
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    writer(reply).follow(_commands(parent=int(sys.argv[1])))
    os._exit(0)  # skip MLflow's threads and exit hooks, which have nothing left to do


if __name__ == "__main__":
    main()
