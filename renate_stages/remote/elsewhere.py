"""A stage that runs elsewhere: send what it reads, have it run, bring what it made.

Where it ran changes nothing else: its outputs lie where they would, and DVC sees no difference. A
job is found by its inputs, so that a stage which is started again attaches to the one that runs, or
takes what it has made.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from renate_stages import files, lineage, tracking
from renate_stages.errors import (
    DamagedOutputError,
    InvalidParamsError,
    MissingExtraError,
    RemoteJobFailedError,
    RemoteJobStoppedError,
    RemoteServiceError,
)
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote.backend import Backend, JobState
from renate_stages.remote.following import follow
from renate_stages.remote.job import CONFIGURATION, FAILURE, MANIFEST, OBJECTS, OUTPUTS, Job
from renate_stages.remote.objects import ObjectStore, name_of
from renate_stages.remote.storage import Storage

T = TypeVar("T")

EXPERIMENT = "DVC_EXP_NAME"  # names the run in MLflow
SHOWN = 15  # last lines of a failed stage that the error repeats


def backend_of(params: Params, stage: str) -> str:
    """Return where a stage is to run, `local` where a job would have nothing to do.

    Raises:
        InvalidParamsError: If what the backend needs is not given.
    """
    backend = params.remote.chosen_backend()
    idle = stage == "tune" and (not params.search_space or params.update.kind == "forget")
    return "local" if idle or stage not in params.remote.stages else backend


def check_backend(params: Params) -> None:
    """Refuse, before any stage works, what the stages that run elsewhere would refuse later.

    Raises:
        InvalidParamsError: If what the backend needs is not given.
        MissingExtraError: If its package is not installed.
    """
    if params.remote.chosen_backend() != "local":
        _check_packages()


def _check_packages() -> None:
    for package in ("boto3", "sagemaker"):
        if find_spec(package) is None:
            raise MissingExtraError("remote.backend: sagemaker", package, "sagemaker,s3")


def connect(params: Params) -> Backend:
    """Return the backend that runs jobs.

    Raises:
        MissingExtraError: If its package is not installed.
        RemoteServiceError: If it refuses us.
    """
    _check_packages()

    from renate_stages.remote.sagemaker import SageMaker

    return SageMaker(params.remote)


def run(
    project: Project,
    params: Params,
    stage: str,
    connect: Callable[[Params], Backend] = connect,
    say: Callable[[str], None] = print,
) -> None:
    """Run a stage in a job, and put what it made in place.

    Args:
        project: Whose stage it is.
        params: Of the project.
        stage: Its name.
        connect: Gives what runs jobs.
        say: Tells the user something in one line.

    Raises:
        RenateStagesError: If it cannot run there, or fails there; nothing here is changed then.
    """
    lineage.check_inputs(project, stage)
    job = Job.of(project, params, stage)
    _check_volume(params, job)
    storage = Storage.at(str(params.remote.url))
    own = storage.child(job.folder.rstrip("/"))
    objects = ObjectStore(storage.child(OBJECTS))
    backend = connect(params)
    found = _answered(backend, lambda: backend.find(job.service_name))
    running = next((each for each in found if each.status == "running"), None)
    if running is not None:
        submitted = running.name
        say(f"attached to job {submitted}, which has the same inputs")
    elif params.remote.reuse and own.has(OUTPUTS):
        say(f"taken from {own.url}: a job with the same inputs has made it")
        fetch(project, params, job, own, objects, say)
        return
    else:
        send(project, job, storage, say)
        asked = job.service_name, storage.url, job.folder
        submitted = _answered(backend, lambda: backend.submit(*asked))
        say(f"job {submitted} is submitted; Ctrl-C asks whether to stop it")
    state = follow(backend, submitted, say)
    if state.status == "completed":
        fetch(project, params, job, own, objects, say)
        return
    raise failure(project, params, state, own, backend)


def _check_volume(params: Params, job: Job) -> None:
    """Refuse a disk that does not hold what the job reads, which would show there much later."""
    given = params.remote.sagemaker.volume_gb
    needed = sum({e["sha256"]: e["size"] for e in job.files.values()}.values()) / 2**30
    if needed > given:
        problem = f"remote.sagemaker.volume_gb is {given}, and {job.stage} reads {needed:.0f} GiB"
        raise InvalidParamsError("params.yaml", [f"{problem}; what it writes needs room too"])


def send(project: Project, job: Job, storage: Storage, say: Callable[[str], None]) -> None:
    """Send what the job reads and is not there, then what it is told."""
    own = storage.child(job.folder.rstrip("/"))
    objects = ObjectStore(storage.child(OBJECTS))
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / job.library[0]
        wheel.write_bytes(job.library[1])
        wanted = {project.root / n: entry for n, entry in job.files.items()}
        sent = objects.upload({**wanted, wheel: job.library_entry}, f"inputs of {job.stage}")
    variables = {n: os.environ[n] for n in (EXPERIMENT,) if n in os.environ}
    configuration = job.configuration(storage.url, variables)
    own.write(MANIFEST, json.dumps(job.manifest(objects.url)).encode())
    own.write(CONFIGURATION, json.dumps(configuration, sort_keys=True).encode())
    size = sum(entry["size"] for entry in job.files.values())
    read = f"{job.stage} reads {len(job.files)} files, {size} bytes"
    say(f"{read}; sent {sent.files} files, {sent.bytes} bytes")


def fetch(
    project: Project,
    params: Params,
    job: Job,
    own: Storage,
    objects: ObjectStore,
    say: Callable[[str], None],
) -> None:
    """Bring what a job has made, check all of it, and only then put it in place."""
    told = _read(own, OUTPUTS)
    made: Any = told.get("files")
    here = {entry["sha256"]: project.root / name for name, entry in job.files.items()}
    _check(own.url_of(OUTPUTS), made, job)
    with project.empty_scratch("fetched") as scratch:
        wanted = {scratch / name: entry for name, entry in made.items()}
        came = objects.download(wanted, here, f"results of {job.stage}")
        for name in job.writes:
            _put_in_place(scratch / name, project.root / name)
    size = sum(entry["size"] for entry in made.values())
    say(
        f"{job.stage} has made {len(made)} files, {size} bytes; brought {came.files} files, "
        f"{came.bytes} bytes"
    )
    _log(project, params, told)


def failure(
    project: Project, params: Params, state: JobState, own: Storage, backend: Backend
) -> Exception:
    """Return the error of a job that has not completed, and log its run."""
    told = _read(own, FAILURE) if own.has(FAILURE) else {}
    if told.get("job") != state.name:  # of an earlier job that failed
        told = {}
    _log(project, params, told)
    if state.status == "stopped":
        cure = "Started again, it goes on from what it has saved."
        return RemoteJobStoppedError(state.name, state.reason or "stopped", cure)
    lines, code = told.get("lines", [])[-SHOWN:], int(told.get("exit_code", 1))
    reason = f"exit code {code}" if lines else state.reason
    return RemoteJobFailedError(state.name, reason, lines, code, backend.log_address(state.name))


def _answered(backend: Backend, ask: Callable[[], T]) -> T:
    """Ask a backend, whose client is patient by itself."""
    try:
        return ask()
    except ConnectionError as error:
        cure = "look after the network, then run `dvc repro` again: what was begun is found"
        raise RemoteServiceError(backend.service, "an answer", str(error), cure) from error


def _read(own: Storage, name: str) -> dict[str, Any]:
    try:
        content = json.loads(own.read(name))
    except ValueError as error:
        raise DamagedOutputError(own.url_of(name), f"it is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise DamagedOutputError(own.url_of(name), "it is no JSON object")
    return content


def _check(url: str, made: Any, job: Job) -> None:
    """Refuse a list of results that would write anywhere but where the stage writes."""
    if not isinstance(made, dict):
        raise DamagedOutputError(url, "it lists no files")
    for name, entry in made.items():
        within = any(name == each or name.startswith(f"{each}/") for each in job.writes)
        if not within or ".." in name.split("/"):
            raise DamagedOutputError(url, f"it lists {name!r}, which {job.stage} does not write")
        try:
            name_of(entry)
            int(entry["size"])
        except (TypeError, KeyError, ValueError) as error:
            raise DamagedOutputError(url, f"its entry of {name!r} is {entry!r}") from error
    lacking = [w for w in job.writes if not any(f"{n}/".startswith(f"{w}/") for n in made)]
    if lacking:
        raise DamagedOutputError(url, f"it lacks {', '.join(lacking)}")


def _put_in_place(source: Path, target: Path) -> None:
    if source.is_dir():
        with files.whole_directory(target) as folder:
            folder.rmdir()
            source.rename(folder)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _log(project: Project, params: Params, told: Mapping[str, Any]) -> None:
    """Log to the project's own MLflow store what the stage logged there."""
    if not params.tracking.enabled or not told.get("tracked"):
        return
    tags = tracking.provenance_tags(project.root)
    tags["remote.job"] = str(told.get("job"))
    if pointer := lineage.pointer_hash(project):
        tags["dvc.parent.md5"] = pointer
    tracking.replay(project.root, told["tracked"], tags)
