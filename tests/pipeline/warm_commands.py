"""Fork `dvc` and `renate-stages` commands from a process that has already imported everything.

A stage in a new process imports torch and Lightning first, which takes longer than its own work.
The forked commands run the same code under the same names in `PATH`; only the imports are not
repeated. Other tests run the commands in new processes: those of the README, of interruptions, of
devices and of cloud jobs.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import logging
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from warm_processes import (
    DVC,
    cache_entry_points,
    leave_pictures_blank,
    prepare,
    run,
    run_python,
    skip_flushing,
)

COMMANDS = {"dvc": "dvc.cli", "renate-stages": "renate_stages.cli.main"}
Variables = tuple[tuple[str, str], ...]
SIDE_PROCESS = "side-process"  # the command that a stage starts to write to MLflow
PYTHON = "warm-python"  # stands for the interpreter where a stage starts one
NEW_RANKS = "NEW_RANKS"  # variable to start the processes that share a training as new ones
MLFLOW = (
    *("mlflow", "mlflow.pyfunc", "mlflow.models", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.store.model_registry.sqlalchemy_store", "git", "numpy", "torch"),
)
TYPER = ("typer", "typer.main", "typer.core", "typer.rich_utils", "shellingham")
OURS = (
    *(
        f"renate_stages.cli.{each}"
        for each in ("main", "champion", "memory", "remote", "stages", "updates")
    ),
    *(
        f"renate_stages.stages.{each}"
        for each in ("prepare", "restore_state", "tune", "train", "export")
    ),
    *(f"renate_stages.actions.{each}" for each in ("check", "digits", "forget", "init", "promote")),
    *(
        "renate_stages.actions.publish",
        "renate_stages.actions.resolve",
        "renate_stages.gate.verdict",
    ),
    *(
        "renate_stages.api.training_job",
        "renate_stages.export.clean_build",
        "renate_stages.gate.challenge",
    ),
    *(
        "renate_stages.memory.composition",
        "renate_stages.reporting.pictures",
        "renate_stages.training.cost",
    ),
    *(
        f"renate_stages.reporting.{each}"
        for each in ("memory_picture", "search_pictures", "search_plots")
    ),
    *(
        f"renate_stages.reporting.{each}"
        for each in ("shift_picture", "update_pictures", "update_plots")
    ),
    *("renate_stages.training.measured_update", "renate_stages.tuning.update_search", "psutil"),
    "torch.distributed.launcher.api",
)
# Imported by stages that need them only for some data or models.
SOMETIMES = (
    *("pandas", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet"),
    *("renate_stages.data.modules.registry", "renate_stages.models.registry"),
    *("renate_stages.export.onnx_program", "renate_stages.export.program"),
    *("renate_stages.shift.against_parent", "renate_stages.reporting.plasticity_plots"),
)
# Imported to submit a job, in the environment that has the SageMaker SDK.
SAGEMAKER = (
    *("boto3", "sagemaker.core.shapes", "sagemaker.core.helper.session_helper"),
    *("sagemaker.core.training.configs", "sagemaker.train", "sagemaker.train.defaults"),
)
# The script in PATH. It passes its streams to the server, waits, and exits with the same code.
CLIENT = """\
#!{python} -SE
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
passed = [int(each) for each in os.environ.pop("PASSED_DESCRIPTORS", "").split()]
asked = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ), passed]).encode()
socket.send_fds(server, [b"%12d" % len(asked)], [0, 1, 2, *passed])
server.sendall(asked)
for each in passed:
    os.close(each)
answers = server.makefile()
process = int(answers.readline())
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, _: os.kill(process, number))
os._exit(int(answers.readline() or 1) % 256)
"""


def folders(python: Path = Path(sys.executable), given: Variables = ()) -> list[str]:
    """Return the folders with all commands, and start the processes that fork them.

    Args:
        python: Interpreter of the environment that has the commands.
        given: Environment variables of these processes, in addition to those of the tests.
    """
    return [str(folder(kind, python, given)) for kind in ("commands", SIDE_PROCESS)]


@cache
def folder(kind: str, python: Path = Path(sys.executable), given: Variables = ()) -> Path:
    """Return the folder with the commands of a kind, and start the process that forks them."""
    place = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(place / "socket")
    for name in (*COMMANDS, PYTHON) if kind == "commands" else (kind,):
        client = place / "bin" / name
        client.parent.mkdir(exist_ok=True)
        client.write_text(CLIENT.format(python=python, address=address, name=name))
        client.chmod(0o755)
    (place / "home").mkdir()
    environment = os.environ | dict(given)
    paths = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    environment |= {
        "HOME": str(place / "home"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    server = subprocess.Popen(
        [str(python), "-P", "-m", "warm_commands", kind, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=place,
    )

    def end() -> None:
        server.kill()
        server.communicate()
        shutil.rmtree(place, ignore_errors=True)

    atexit.register(end)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    return place / "bin"


def serve(kind: str, address: str) -> None:
    """Import everything, then fork a process for each requested command.

    The server accepts commands immediately; the first ones wait until everything is imported.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        import_for(kind)
        gc.freeze()  # shared objects stay untouched, so that forks do not copy them
        fork_commands(listening)


def fork_commands(listening: socket.socket) -> None:
    """Fork a process for each requested command, and send its id and later its exit code."""
    ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asking: dict[int, socket.socket] = {}  # the connection that asked for each running process
    while True:
        ready, _, _ = select.select([listening, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            with suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    code = os.waitstatus_to_exitcode(found[1])
                    with asking.pop(found[0]) as connection, suppress(OSError):  # it may have left
                        connection.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
        if listening in ready:
            connection, _ = listening.accept()
            size, streams, *_ = socket.recv_fds(connection, 12, 16)
            if not size:  # the client was killed
                continue
            asked = json.loads(connection.recv(int(size), socket.MSG_WAITALL))
            process = os.fork()
            if process == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (ended, wakeup):
                    os.close(each)
                for each in (listening, connection, *asking.values()):
                    each.close()
                answer(asked, streams)
            for each in streams:
                os.close(each)
            asking[process] = connection
            with suppress(OSError):
                connection.sendall(b"%d\n" % process)


def import_for(kind: str) -> None:
    """Import what commands of a kind need; each kind has a process of its own."""
    if kind == SIDE_PROCESS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations in MLflow's dependencies
            for each in MLFLOW:
                importlib.import_module(each)
            open_a_store()
        return
    from renate_stages.learners.registry import LEARNERS, learner_class
    from renate_stages.tuning.fork_server import import_all

    cache_entry_points()
    skip_flushing()
    import_all()
    prepare([*TYPER, *OURS, *DVC, *SOMETIMES])
    with suppress(ModuleNotFoundError):
        prepare(SAGEMAKER)
    for each in LEARNERS:
        if not each.startswith("Avalanche"):
            learner_class(each)
    trace_once()
    leave_pictures_blank(setattr)


def trace_once() -> None:
    """Make torch import everything that tracing a model needs."""
    import torch

    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2))
    example = (torch.zeros(2, 1, 4, 4),)
    torch.export.export(layers, example, dynamic_shapes=({0: torch.export.Dim("batch")},))


def open_a_store() -> None:
    """Make MLflow do the work that it does when the first store is opened."""
    from mlflow import MlflowClient

    logging.disable(logging.INFO)  # MLflow logs that it creates tables
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    client.search_experiments()
    client.search_registered_models()
    logging.disable(logging.NOTSET)


def answer(asked: Sequence[Any], streams: Sequence[int]) -> None:
    """Run a command with the folder, environment and streams of the process that asked for it."""
    name, arguments, place, environment, passed = asked
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in streams]  # to free the numbers
    for each in streams:
        os.close(each)
    for number, each in zip((0, 1, 2, *passed), moved, strict=True):
        os.dup2(each, number)
        os.close(each)
    sys.argv = [name, *arguments]
    run_command(name)


def run_command(name: str) -> None:
    """Run a command in this process, and exit with its code."""
    if name == SIDE_PROCESS:
        script = sys.argv[1]
        sys.argv = [script, str(os.getppid())]  # the script watches this process
        run(lambda: runpy.run_path(script, run_name="__main__"))
    from renate_stages.lineage import commands
    from renate_stages.tracking import side_process

    commands.subprocess = ForkedDvc()  # type: ignore[assignment]
    bin_folder = next(
        (
            each
            for each in os.environ["PATH"].split(os.pathsep)
            if (Path(each) / SIDE_PROCESS).exists()
        ),
        None,
    )
    if bin_folder is not None:
        side_process.subprocess = WarmSideProcess(Path(bin_folder))  # type: ignore[assignment]
    if name == PYTHON:
        run(run_python)
    fork_python(Path(shutil.which(PYTHON) or ""))
    run_module(COMMANDS[name])


def fork_python(client: Path) -> None:
    """Let stages fork the server of trials and the processes that share a training."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    from renate_stages.tuning import processes

    def popen(
        args: Sequence[str],
        env: Mapping[str, str] = os.environ,
        pass_fds: Sequence[int] = (),
        **options: Any,
    ) -> subprocess.Popen[Any]:
        env = {**env, "PASSED_DESCRIPTORS": " ".join(map(str, pass_fds))}
        return subprocess.Popen([str(client), *args[1:]], env=env, pass_fds=pass_fds, **options)

    processes.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": popen})  # type: ignore
    if NEW_RANKS not in os.environ:
        subprocess_handler.Popen = popen  # type: ignore[assignment]


def run_module(module: str) -> None:
    """Run the `main` of a module, and exit with its code."""
    run(lambda: importlib.import_module(module).main())


class WarmSideProcess:
    """Replaces the module `subprocess` where the MLflow writer process is started.

    Args:
        folder: Folder with the command that forks the writer process.
    """

    PIPE = subprocess.PIPE

    def __init__(self, folder: Path) -> None:
        self.command = str(folder / SIDE_PROCESS)

    def Popen(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: N802
        return subprocess.Popen([self.command, *command[2:]], **options)


class ForkedDvc:
    """Replaces the module `subprocess` where Git and DVC are run; forks DVC instead of starting it.

    Args:
        begin: Function that each forked DVC process calls first.
    """

    DEVNULL = subprocess.DEVNULL

    def __init__(self, begin: Callable[[], object] = lambda: None) -> None:
        self.begin = begin

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "dvc"]:
            return subprocess.run(command, **options)  # noqa: PLW1510 -- the caller decides
        sys.audit("subprocess.Popen", command[0], command, None, None)  # seen by audit hooks
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = os.fork()
            if process == 0:
                self.begin()
                run_dvc(command[3:], options, out.fileno(), err.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            for each in (out, err):
                each.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), err.read())


def run_dvc(arguments: list[str], options: dict[str, Any], out: int, err: int) -> None:
    """Run DVC in this process, and exit with its code."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(options["cwd"])
    os.environ.update(options["env"])
    sys.argv = ["dvc", *arguments]
    run_module("dvc.cli")


if __name__ == "__main__":
    serve(*sys.argv[1:])
