"""Fetch a job's results, verify them, and put them in place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from renate_stages import files, tracking
from renate_stages.errors import (
    DamagedOutputError,
    DamagedTransferError,
    OversizedFileError,
    RemoteJobFailedError,
    RemoteJobStoppedError,
    RenateStagesError,
)
from renate_stages.files import Entry
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote.backend import Backend, JobState
from renate_stages.remote.job import FAILURE, OUTPUTS, Job
from renate_stages.remote.messages import (
    MESSAGE_BYTES,
    Failure,
    M,
    Outputs,
    parse,
    recording_in,
)
from renate_stages.state import MANIFEST, State
from renate_stages.state.inputs import read_tuned, update_inputs
from renate_stages.state.prepared import PreparedData
from renate_stages.storage.objects import ObjectStore
from renate_stages.storage.storage import Storage
from renate_stages.tracking.update_run import run_identity, search_identity

SHOWN = 15  # last lines of a failed stage to show in the error


def fetch(
    project: Project,
    params: Params,
    job: Job,
    own: Storage,
    objects: ObjectStore,
    say: Callable[[str], None],
) -> None:
    """Download a job's results, check all of them, and only then put them in place."""
    message = read(own, OUTPUTS, Outputs)
    made = {name: entry.model_dump() for name, entry in message.files.items()}
    here = {entry["sha256"]: project.root / name for name, entry in job.files.items()}
    _check(own.url_of(OUTPUTS), made, project, job)
    with project.empty_scratch("fetched") as scratch:
        wanted = {scratch / name: entry for name, entry in made.items()}
        try:
            downloaded = objects.download(wanted, here, f"results of {job.stage}")
        except (DamagedTransferError, DamagedOutputError) as error:
            problem = f"a file in its list is wrong: {str(error).splitlines()[0].rstrip('.')}"
            raise DamagedOutputError(own.url_of(OUTPUTS), problem) from error
        for name in job.writes:
            _put_in_place(scratch / name, project.root / name)
    size = sum(entry["size"] for entry in made.values())
    say(
        f"{job.stage} has written {len(made)} files, {size} bytes; "
        f"downloaded {downloaded.files} files, {downloaded.bytes} bytes"
    )
    _log(project, params, job, message, own)


def failure(
    project: Project,
    params: Params,
    job: Job,
    state: JobState,
    own: Storage,
    backend: Backend,
) -> Exception:
    """Return the error of a job that has not completed, and log its run to MLflow."""
    message, lines = None, []
    try:
        message = read(own, FAILURE, Failure) if own.has(FAILURE) else None
    except (DamagedOutputError, OversizedFileError) as error:
        lines = str(error).splitlines()[:1]
    if message is not None and message.job != state.name:  # an earlier job wrote it
        message = None
    if message is not None:
        lines = message.lines[-SHOWN:]
        _log(project, params, job, message, own)
    if state.status == "stopped":
        cure = "When you start it again, it continues from its last checkpoint."
        return RemoteJobStoppedError(state.name, state.reason or "stopped", cure)
    code = message.exit_code if message is not None else 1
    reason = f"exit code {code}" if message is not None and lines else state.reason
    return RemoteJobFailedError(state.name, reason, lines, code, backend.log_address(state.name))


def read(own: Storage, name: str, kind: type[M]) -> M:
    """Read a message that a job has written.

    Raises:
        DamagedOutputError: If the message is not valid.
        OversizedFileError: If the message is larger than a job would write.
    """
    content = own.read(name, MESSAGE_BYTES)
    try:
        return parse(kind, content)
    except ValueError as error:
        raise DamagedOutputError(
            own.url_of(name), f"it is not a valid message of a job: {error}"
        ) from error


def _check(url: str, made: Mapping[str, Entry], project: Project, job: Job) -> None:
    """Refuse a list of results with missing files, or with files that the stage does not write."""
    for name in made:
        if not any(name == each or name.startswith(f"{each}/") for each in job.writes):
            raise DamagedOutputError(url, f"it lists {name!r}, which {job.stage} does not write")
        above = (parent.as_posix() for parent in PurePosixPath(name).parents)
        if file := next((each for each in above if each in made), None):
            raise DamagedOutputError(url, f"it lists {name!r}, but also {file!r} as a file")
    lacking = [w for w in job.writes if not any(f"{n}/".startswith(f"{w}/") for n in made)]
    if lacking:
        raise DamagedOutputError(url, f"it lacks {', '.join(lacking)}")
    for name in job.writes:
        if (project.root / name).exists() and (project.root / name).is_dir() == (name in made):
            raise DamagedOutputError(
                url, f"it lists {name!r} as a {'file' if name in made else 'folder'}"
            )


def _put_in_place(source: Path, target: Path) -> None:
    if source.is_dir():
        with files.whole_directory(target) as folder:
            folder.rmdir()
            source.rename(folder)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _log(
    project: Project,
    params: Params,
    job: Job,
    message: Outputs | Failure,
    own: Storage,
) -> None:
    """Log what the stage logged in the job to the project's own MLflow store, or warn."""
    if not params.tracking.enabled or message.tracked is None:
        return

    def identity(key: str) -> tracking.RunIdentity:
        return identity_of(project, params, job, key, message.job)

    entry = message.tracked.model_dump()
    made = None
    if isinstance(message, Outputs):
        made = {name: project.root / name for name in message.files}
    complete = None if made is None else {}
    if complete is not None and (manifest := project.state / MANIFEST).is_file():
        complete = {"renate.state": files.sha256(manifest)} if job.stage == "train" else {}
    try:
        name = recording_in(entry)
        if entry["size"] > tracking.RECORDING_BYTES:
            raise OversizedFileError(own.url_of(name), entry["size"], tracking.RECORDING_BYTES)
        with project.empty_scratch("tracked") as scratch:
            recording = scratch / "tracked.jsonl"
            own.get({name: recording}, {name: entry}, "what was logged")
            tracking.replay(project.root, recording, identity, outputs=made, complete=complete)
    except RenateStagesError as error:
        line = str(error).partition("\n")[0]
        print(f"warning: what the job logged is not in MLflow: {line}", file=sys.stderr, flush=True)


def identity_of(
    project: Project, params: Params, job: Job, key: str, name: str | None
) -> tracking.RunIdentity:
    """Return the identity of a stage's MLflow run, computed from local files.

    Only the key of a search comes from the job, because it depends on package versions in the
    image. The commit is the one at which the stage began, even if others were made while the job
    ran.
    """
    parent = State.open(project.restored, examples=project.parent)
    if job.stage == "tune":
        found = search_identity(project, params, key=key, parent=parent.identity)
    else:
        params = params.fixed(read_tuned(project.tuned))
        key = update_inputs(project, params, parent, PreparedData.open(project.prepared)).key
        found = run_identity(project, params, key=key, parent=parent.identity)
    tags = {tag: value for tag, value in found.tags.items() if not tag.startswith("git.")}
    return replace(found, tags={**tags, **job.origin, "remote.job": str(name)})
