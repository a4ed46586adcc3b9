"""Run a stage in the cloud: send its inputs, run the job, fetch its outputs.

The outputs are the same as those of a local run, in the same places, so DVC sees no difference. A
job is identified by its inputs. So a stage that is started again attaches to the running job, or
takes the results of a completed one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from renate_stages import lineage, tracking
from renate_stages.errors import (
    ChangedInputsError,
    DamagedOutputError,
    InvalidParamsError,
    MissingExtraError,
    OversizedFileError,
    RemoteServiceError,
)
from renate_stages.errors.redaction import shown
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote.backend import Backend
from renate_stages.remote.following import follow
from renate_stages.remote.job import FAILURE, OBJECTS, OUTPUTS, Job
from renate_stages.remote.messages import EXPERIMENT, Failure
from renate_stages.remote.results import failure, fetch, read
from renate_stages.storage.objects import ObjectStore, name_of
from renate_stages.storage.storage import Storage

T = TypeVar("T")


def backend_of(params: Params, stage: str) -> str:
    """Return the backend of a stage; `local` if a job would have nothing to do.

    Raises:
        InvalidParamsError: If a setting that the backend needs is missing.
    """
    backend = params.remote.chosen_backend()
    idle = stage == "tune" and (not params.search_space or params.update.kind == "forget")
    return "local" if idle or stage not in params.remote.stages else backend


def check_backend(params: Params) -> None:
    """Check, before any stage runs, what the stages that run as jobs need.

    Raises:
        InvalidParamsError: If a setting that the backend needs is missing.
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
        RemoteServiceError: If the service rejects the credentials or the region.
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
    """Run a stage in a job, and put its results in place.

    Args:
        project: The project of the stage.
        params: Parameters of the project.
        stage: Name of the stage.
        connect: Returns the backend that runs jobs.
        say: Prints one line for the user.

    Raises:
        ChangedInputsError: If the inputs were edited while the job ran; its results are not
            fetched.
        RenateStagesError: If the job cannot run or fails; no local file is changed then.
    """

    def tell(line: str) -> None:
        say(shown(line))

    if params.tracking.enabled:
        tracking.tracking_uri(project.root)  # reports an invalid address now
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
        tell(f"attached to job {submitted}, which has the same inputs")
    elif params.remote.reuse and own.has(OUTPUTS):
        tell(f"using the results at {own.url}: a job with the same inputs has produced them")
        fetch(project, params, job, own, objects, tell)
        return
    else:
        digest = send(project, job, storage, tell)
        request = job.service_name, storage.url, job.folder, digest
        submitted = _answered(backend, lambda: backend.submit(*request))
        tell(f"job {submitted} is submitted; press Ctrl-C to stop it or to leave it running")
    state = follow(backend, submitted, tell)
    if state.status == "completed":
        _check_unchanged(project, params, job)
        fetch(project, params, job, own, objects, tell)
        return
    raise failure(project, params, job, state, own, backend)


def _check_unchanged(project: Project, params: Params, job: Job) -> None:
    """Refuse results of inputs that have changed: DVC would attribute them to the new inputs.

    Raises:
        ChangedInputsError: If a file or a parameter changed while the job ran.
    """
    now = Job.of(project, params, job.stage)
    if now.key != job.key:
        names = {n for n in {*now.files, *job.files} if now.files.get(n) != job.files.get(n)}
        raise ChangedInputsError(job.stage, names or {"params.yaml"})


def _check_volume(params: Params, job: Job) -> None:
    """Refuse a disk that is too small for the job's inputs, before the job fails because of it."""
    given = params.remote.sagemaker.volume_gb
    needed = sum({e["sha256"]: e["size"] for e in job.files.values()}.values()) / 2**30
    if needed > given:
        problem = f"remote.sagemaker.volume_gb is {given}, but {job.stage} reads {needed:.0f} GiB"
        raise InvalidParamsError("params.yaml", [f"{problem}, and its outputs need space too"])


def send(project: Project, job: Job, storage: Storage, say: Callable[[str], None]) -> str:
    """Upload the missing inputs of a job and its description; return that one's SHA-256."""
    own = storage.child(job.folder.rstrip("/"))
    objects = ObjectStore(storage.child(OBJECTS))
    doubted = {name_of(job.library_entry), *_reported(own)}
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / job.library[0]
        wheel.write_bytes(job.library[1])
        wanted = {project.root / n: entry for n, entry in job.files.items()}
        wanted[wheel] = job.library_entry
        sent = objects.upload(wanted, f"inputs of {job.stage}", doubted)
    variables = {n: os.environ[n] for n in (EXPERIMENT,) if n in os.environ}
    described = json.dumps(job.configuration(storage.url, variables), sort_keys=True).encode()
    digest = hashlib.sha256(described).hexdigest()
    own.write(job.manifest_in(digest), json.dumps(job.manifest(objects.url)).encode())
    own.write(job.description_in(digest), described)
    size = sum(entry["size"] for entry in job.files.values())
    read = f"{job.stage} reads {len(job.files)} files, {size} bytes"
    say(f"{read}; sent {sent.files} files, {sent.bytes} bytes")
    return digest


def _reported(own: Storage) -> list[str]:
    """Return the names of objects that an earlier job with these inputs found damaged."""
    try:
        return read(own, FAILURE, Failure).damaged if own.has(FAILURE) else []
    except (DamagedOutputError, OversizedFileError):
        return []


def _answered(backend: Backend, ask: Callable[[], T]) -> T:
    """Call a backend, whose client retries by itself; report a lost connection."""
    try:
        return ask()
    except ConnectionError as error:
        cure = "check the network, then run `dvc repro` again, which finds work that has begun"
        raise RemoteServiceError(backend.service, "the connection", str(error), cure) from error
