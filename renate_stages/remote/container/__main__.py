"""Run one stage inside a job: create the project folder, run the stage, upload its results.

    python -m renate_stages.remote.container <job.json> <folder with the objects>

The stage is the same command that DVC runs on a user's machine, in a folder with the same layout.
If the job has several machines, each runs the stage with torchrun, and the first one uploads the
results.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renate_stages import files, tracking
from renate_stages.errors import OversizedFileError, RenateStagesError, user_code
from renate_stages.files import Entry
from renate_stages.params.remote import BACKEND_VARIABLE
from renate_stages.remote.job import FAILURE, OUTPUTS
from renate_stages.remote.messages import (
    LAST_LINES,
    LINE_LENGTH,
    Failure,
    JobDescription,
    Message,
    Outputs,
    parse,
    recording_in,
)
from renate_stages.remote.start import END
from renate_stages.storage.objects import ObjectStore, damaged, name_of
from renate_stages.storage.storage import Storage

SHOWN = 15  # maximum number of damaged objects to list
REASON_LENGTH = 1000  # characters of a failure reason; SageMaker cuts it at 1024
PORT = 7777  # on which the machines of a job connect
RECORDING = "tracked.jsonl"
TORCHRUN = "torch.distributed.run"


@dataclass(frozen=True)
class Host:
    """This machine among those of the job.

    Args:
        name: Name of this machine.
        names: Names of all machines, ascending; the first one uploads the results.
    """

    name: str
    names: Sequence[str]

    @classmethod
    def here(cls, environment: Mapping[str, str]) -> Host:
        """Return this machine, according to SageMaker's training toolkit."""
        name = environment.get("SM_CURRENT_HOST", "algo-1")
        return cls(name, json.loads(environment.get("SM_HOSTS", json.dumps([name]))))

    @property
    def rank(self) -> int:
        return self.names.index(self.name)

    @property
    def leads(self) -> bool:
        return self.rank == 0


def main(configuration: Path, inputs: Path, environment: Mapping[str, str]) -> int:
    """Run the job that a file describes; return the stage's exit code.

    Args:
        configuration: `job.json`, which `start.py` has verified.
        inputs: Folder with the objects that it lists.
        environment: Environment variables of the job.
    """
    job = parse(JobDescription, configuration.read_bytes())
    host = Host.here(environment)
    base = Path(environment["SM_INPUT_DIR"]).parent
    storage = Storage.at(job.url)
    folder = storage.child(f"jobs/{job.stage}-{job.key}")
    listed = {name: entry.model_dump() for name, entry in job.files.items()}
    if wrong := damaged(inputs, listed.values()):
        lines = [f"objects/{name} does not match the SHA-256 in its name" for name in wrong[:SHOWN]]
        lines.append(f"To fix this: run `dvc repro` again, which sends {len(wrong)} objects again.")
        return _fail(folder, environment, lines, 2, damaged=wrong)
    root = base / "project"
    lay_out(root, listed, inputs, base / "checkpoints")
    recording = base / RECORDING
    recording.unlink(missing_ok=True)  # left by an interrupted run on this machine
    code, lines = run_stage(root, job, host, recording, environment)
    if not host.leads:
        return code
    tracked = _send_recording(recording, folder)
    if code:
        return _fail(folder, environment, lines, code, tracked=tracked)
    store = ObjectStore(storage.child("objects"))
    made = outputs(root, job.writes)
    verified = {entry["sha256"] for entry in listed.values()}
    doubted = [name_of(entry) for entry in made.values() if entry["sha256"] not in verified]
    sent = store.upload({root / name: entry for name, entry in made.items()}, "results", doubted)
    print(f"{len(made)} files written, {sent.files} sent: {sent.bytes} bytes", flush=True)
    message = {"job": environment.get("TRAINING_JOB_NAME"), "files": made, "tracked": tracked}
    _write(folder, OUTPUTS, Outputs.model_validate(message))
    return 0


def _send_recording(recording: Path, folder: Storage) -> Entry | None:
    """Upload what the stage logged, if anything; return its size and SHA-256.

    If the upload fails, print a warning instead of losing the results of the job.
    """
    size = recording.stat().st_size if recording.is_file() else 0
    if not size:
        return None
    entry = {"sha256": files.sha256(recording), "size": size}
    try:
        if size > tracking.RECORDING_BYTES:
            raise OversizedFileError(RECORDING, size, tracking.RECORDING_BYTES)
        folder.put({recording_in(entry): recording}, "what was logged")
    except RenateStagesError as error:
        print(f"warning: what was logged is not in MLflow: {error}", flush=True)
        return None
    return entry


def _fail(
    folder: Storage,
    environment: Mapping[str, str],
    lines: Sequence[str],
    code: int,
    **more: Any,
) -> int:
    """Report why the job has failed, to the bucket and to SageMaker; return the exit code."""
    reason = "\n".join(lines)[-REASON_LENGTH:]
    Path(environment["SM_OUTPUT_FAILURE"]).write_text(reason, encoding="utf-8")
    cut = [line[:LINE_LENGTH] for line in lines]
    job = environment.get("TRAINING_JOB_NAME")
    _write(folder, FAILURE, Failure(job=job, exit_code=code, lines=cut, **more))
    return code


def lay_out(root: Path, listed: Mapping[str, Entry], inputs: Path, checkpoints: Path) -> None:
    """Create the project's folder from the objects, with links to the folder for checkpoints.

    Args:
        root: The folder to create.
        listed: Files of the project, by relative path; their objects are already verified.
        inputs: Folder with the objects.
        checkpoints: Folder that the service preserves if the job is interrupted.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, entry in listed.items():
        target = root / name
        if target.exists() and files.sha256(target) != entry["sha256"]:
            target.unlink()
        if not target.exists():  # an interrupted job may restart in the same folder
            _link((inputs / name_of(entry)).absolute(), target)
    scratch = root / ".renate"
    scratch.mkdir(exist_ok=True)
    for name in ("resume", "tuning"):
        (checkpoints / name).mkdir(parents=True, exist_ok=True)
        if not (scratch / name).is_symlink():
            (scratch / name).symlink_to(checkpoints / name, target_is_directory=True)


def _link(source: Path, target: Path) -> None:
    """Link a file to another path instead of copying it, because the disk may be too small."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # on another file system, or read-only
        target.symlink_to(source)


def run_stage(
    root: Path,
    job: JobDescription,
    host: Host,
    recording: Path,
    environment: Mapping[str, str],
) -> tuple[int, list[str]]:
    """Run the stage's command; return its exit code and the last lines that it printed."""
    own = {
        **environment,
        **job.variables,
        BACKEND_VARIABLE: "local",
        tracking.FILE_VARIABLE: str(recording),
        "PYTHONUNBUFFERED": "1",
        user_code.SHOWN: "1",  # prints tracebacks, because users cannot see files of this machine
    }
    lines: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        stage_command(root, job, host),
        cwd=root,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        before = signal.signal(
            signal.SIGTERM, lambda *_: process.terminate()
        )  # if the job is stopped
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    signal.signal(signal.SIGTERM, before)
    code = process.returncode
    return (128 - code if code < 0 else code), list(lines)


def stage_command(root: Path, job: JobDescription, host: Host) -> list[str]:
    """Return the command of the stage on this machine, with torchrun if there are several."""
    command = [sys.executable, "-m"]
    if job.nodes > 1:
        command += [TORCHRUN, *meeting(root, host), "-m"]
    return [*command, "renate_stages", *job.command]


def meeting(root: Path, host: Host) -> list[str]:
    """Return the torchrun options with which the machines of a job connect to each other."""
    from renate_stages.params import Params

    devices = Params.load(root / "params.yaml").trainer.devices
    return [
        f"--nnodes={len(host.names)}",
        f"--node-rank={host.rank}",
        f"--nproc-per-node={devices}",
        f"--master-addr={host.names[0]}",
        f"--master-port={PORT}",
    ]


def outputs(root: Path, written: Sequence[str]) -> dict[str, files.Entry]:
    """Return all files under the paths that a stage writes, by relative path."""
    found: dict[str, files.Entry] = {}
    for name in written:
        path = root / name
        if path.is_dir():
            found |= {f"{name}/{each}": entry for each, entry in files.inventory(path).items()}
        elif path.is_file():
            found[name] = {"sha256": files.sha256(path), "size": path.stat().st_size}
    return found


def _write(storage: Storage, name: str, message: Message) -> None:
    """Write a message atomically, as JSON."""
    storage.write(name, json.dumps(message.model_dump(), sort_keys=True).encode())


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), Path(sys.argv[2]), os.environ)
    print(END, flush=True)
    sys.exit(code)
