"""Build an exported model in a process that has only its folder, as serving and the gate do.

The process is forked before the user's code is loaded, from one that has imported torch, so it costs
no imports. Where this process runs threads, which a fork would lose, it is a new interpreter:

    python -P -m renate_stages.export.clean_build SOCKET
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renate_stages.errors import ForeignFileError, UnbuildableExportError
from renate_stages.errors.user_files import EXPORTABLE
from renate_stages.export.built_model import BuiltModel
from renate_stages.export.exported import Exported
from renate_stages.models.stored import read_tensors
from renate_stages.params import Params
from renate_stages.processes import end_with_parent
from renate_stages.state import State
from renate_stages.user import file_watch
from renate_stages.user.config import UserConfig
from renate_stages.user.modules import project_modules
from renate_stages.user.used_files import OwnFiles

SILENCE = 1800.0  # seconds after which the process is given up
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # of outputs, as of an exported program's
LIST_IT = "add {name} to export.files in params.yaml and to the deps of export in dvc.yaml"


class CleanProcess:
    """The process, which waits for a folder to build from.

    Args:
        connection: To it.
        end: Kills it, and waits for its end.
        log: What it prints.
    """

    def __init__(self, connection: socket.socket, end: Callable[[], object], log: Any) -> None:
        self._connection, self._end, self._log = connection, end, log

    def begin(self, **request: Any) -> None:
        """Have it build; see `build`. It works while this process does something else."""
        with suppress(OSError):  # it has died, which `finish` says
            self._connection.sendall(json.dumps(request).encode() + b"\n")

    def finish(self) -> None:
        """Wait until it has built the model.

        Raises:
            UnbuildableExportError: If it could not, or the model is another one.
        """
        self._connection.settimeout(SILENCE)
        try:
            line = self._connection.makefile("rb").readline()
        except OSError:  # it has died, or took too long
            line = b""
        if not line:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()[-5:]
            problem = "\n".join(["the process that builds it died, or timed out.", *said])
            raise UnbuildableExportError(
                problem, "check what renate_config.py needs, then try again"
            )
        if answer := json.loads(line):
            raise UnbuildableExportError(answer["problem"], answer["cure"])

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self._end()
        self._log.close()


@contextmanager
def clean_process() -> Iterator[CleanProcess]:
    """Start the process, before the user's code is loaded; it ends with the block."""
    ours, theirs = socket.socketpair()
    log = tempfile.TemporaryFile()  # noqa: SIM115 -- closed in close()
    start = _fork if _may_fork() else _spawn
    process = CleanProcess(ours, start(ours, theirs, log), log)
    theirs.close()
    try:
        yield process
    finally:
        process.close()


def _may_fork() -> bool:
    """Return whether a forked process would have all that this one has: no thread, no GPU."""
    threads = Path("/proc/self/task")
    return (
        threads.is_dir() and len(list(threads.iterdir())) == 1 and not torch.cuda.is_initialized()
    )


def _fork(ours: socket.socket, theirs: socket.socket, log: Any) -> Callable[[], object]:
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:

        def end() -> None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)

        return end
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage
        end_with_parent()
        ours.close()
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        serve(theirs)
    except BaseException:  # noqa: BLE001 -- the child must never go on as the stage
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(0)


def _spawn(_: socket.socket, theirs: socket.socket, log: Any) -> Callable[[], object]:
    command = [sys.executable, "-P", "-m", "renate_stages.export.clean_build", str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=tempfile.gettempdir(),
    )

    def end() -> None:
        process.kill()
        process.wait()

    return end


def serve(connection: socket.socket) -> None:
    """Build what is asked for, once, and say what went wrong."""
    line = connection.makefile("rb").readline()
    if line:
        connection.sendall(json.dumps(build(**json.loads(line))).encode() + b"\n")


def build(*, folder: str, project: str, state: str, params: Any, outputs: str) -> dict[str, str]:
    """Build the model of a folder; return what is wrong and its cure, or nothing.

    Args:
        folder: An exported model with its code.
        project: The project, no file of which may be used beside.
        state: The state that the model is of, which keeps examples.
        params: Of the update, as values.
        outputs: A file with what the model says of these examples, as tensors.
    """
    place, root = Path(folder), Path(project)
    with tempfile.TemporaryDirectory(prefix="renate-stages-") as elsewhere:
        os.chdir(elsewhere)
        _forget_project(root)
        try:
            checked, described = Params.parse(params), Exported.read(place)
            torch.set_num_threads(checked.trainer.threads)
            user = UserConfig.load(place / file_watch.CODE, watch=OwnFiles(place, root))
            values = described.hyperparameters
            built = BuiltModel.of(user, values, checked, place, State.open(Path(state)))
            found = built.outputs()
        except Exception as error:  # noqa: BLE001 -- whatever the user's code needs
            traceback.print_exc()
            problem, cure = explained(error, place, root)
            return {"problem": problem.replace(f"{place}/", "export/"), "cure": cure}
        finally:
            os.chdir("/")
    differing = difference(found, read_tensors(Path(outputs)))
    if not differing:
        return {}
    return {
        "problem": f"there it gives other outputs than the trained model: {differing}",
        "cure": "have renate_config.py take nothing from outside its folder but packages: open files "
        "by `Path(__file__).parent / ...`, and name them in export.files in params.yaml where "
        "nothing sees that they are read",
    }


def explained(error: BaseException, folder: Path, project: Path) -> tuple[str, str]:
    """Return what a model lacks that cannot be built from a folder, and what to do."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    said = str(error).partition("\nTo ")[0].replace(f"{folder}/", "export/")
    for each in causes:
        if isinstance(each, ForeignFileError):
            return str(each).partition("\nTo ")[0], EXPORTABLE.format(name=each.name)
        if isinstance(each, ModuleNotFoundError) and each.name:
            cure = (
                f"import {each.name} from the folder of renate_config.py, so that it is copied "
                "to the same place in export/; install it if it is a package"
            )
            return said, cure
        if isinstance(each, FileNotFoundError) and isinstance(each.filename, str):
            name = Path(each.filename)
            if name.is_relative_to(folder):
                return said, LIST_IT.format(name=name.relative_to(folder))
            if not name.is_absolute():
                return said, EXPORTABLE.format(name=str(name))
    relative = EXPORTABLE.format(name="vocab.txt")
    return said, f"where it reads a file, {relative}; and {LIST_IT.format(name='the file')}"


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Say how outputs differ; nothing where they are close."""
    shapes = [[(n, tuple(t.shape)) for n, t in sorted(each.items())] for each in (found, expected)]
    if shapes[0] != shapes[1]:
        return f"their shapes are {shapes[0]}, expected {shapes[1]}"
    for name, tensor in expected.items():
        one, other = found[name].double(), tensor.double()
        if not torch.allclose(one, other, **CLOSE, equal_nan=True):
            return f"by up to {float((one - other).abs().nan_to_num(nan=torch.inf).max()):.3g}"
    return ""


def _forget_project(root: Path) -> None:
    """Let this process be as one that never knew the project."""
    file_watch.forget_all()
    sys.dont_write_bytecode = True
    for name in (*project_modules(root.resolve()), "renate_config"):
        sys.modules.pop(name, None)
    inside = file_watch.spellings(root)
    kept = [each for each in sys.path if each and not f"{each}{os.sep}".startswith(inside)]
    own = [each for each in sys.path if "site-packages" in Path(each).parts]  # of a .venv in there
    sys.path[:] = [each for each in sys.path if each in kept or each in own]


def main() -> None:
    """Be the process."""
    end_with_parent()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
