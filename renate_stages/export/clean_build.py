"""Test an export: build its model in a process that uses only the export's folder.

Serving and the gate build the model in the same way. The process is forked before the user's code is
loaded and after torch is imported, so that it does not repeat imports. If this process has threads,
which a fork would lose, a new interpreter is started instead:

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
from renate_stages.preprocessing import read_preprocessing
from renate_stages.processes import end_with_parent
from renate_stages.state import State
from renate_stages.user import file_watch
from renate_stages.user.config import UserConfig
from renate_stages.user.modules import project_modules
from renate_stages.user.used_files import OwnFiles

SILENCE = 1800.0  # timeout of the process in seconds
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # tolerance of outputs, the same as for a program
LIST_IT = "add {name} to export.files in params.yaml and to the deps of export in dvc.yaml"


class CleanProcess:
    """A process that waits for an export's folder to build.

    Args:
        connection: Socket to the process.
        end: Kills the process and waits for its end.
        log: File with the process's output.
    """

    def __init__(self, connection: socket.socket, end: Callable[[], object], log: Any) -> None:
        self._connection, self._end, self._log = connection, end, log

    def begin(self, **request: Any) -> None:
        """Request a build, with the arguments of `build`, and return at once."""
        with suppress(OSError):  # if the process has died, `finish` reports it
            self._connection.sendall(json.dumps(request).encode() + b"\n")

    def finish(self) -> None:
        """Wait until the process has built the model.

        Raises:
            UnbuildableExportError: If the build failed, or the model gives other outputs.
        """
        self._connection.settimeout(SILENCE)
        try:
            line = self._connection.makefile("rb").readline()
        except OSError:  # the process has died or timed out
            line = b""
        if not line:
            self._log.seek(0)
            output = self._log.read().decode(errors="replace").strip().splitlines()[-5:]
            problem = "\n".join(["the process that builds it died, or timed out.", *output])
            raise UnbuildableExportError(
                problem, "check what renate_config.py needs, then try again"
            )
        if answer := json.loads(line):
            raise UnbuildableExportError(answer["problem"], answer["cure"])

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._end()
        self._log.close()


@contextmanager
def clean_process() -> Iterator[CleanProcess]:
    """Start the process; call this before the user's code is loaded. It ends with the block."""
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
    """Return whether this process can be forked: it has no other threads and uses no GPU."""
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C must only reach the stage
        end_with_parent()
        ours.close()
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        serve(theirs)
    except BaseException:  # noqa: BLE001 -- the child must never run the stage's code
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
    """Handle one build request, and answer with the problem, if any."""
    line = connection.makefile("rb").readline()
    if line:
        connection.sendall(json.dumps(build(**json.loads(line))).encode() + b"\n")


def build(*, folder: str, project: str, state: str, params: Any, outputs: str) -> dict[str, str]:
    """Build the model in a folder; return the problem and its cure, or an empty dict.

    Args:
        folder: Folder of an exported model with its code.
        project: Folder of the project, from which no other file may be used.
        state: Folder of the model's state, which has examples.
        params: The update's parameters, as plain values.
        outputs: File with the expected outputs for these examples, as tensors.
    """
    place, root = Path(folder), Path(project)
    with tempfile.TemporaryDirectory(prefix="renate-stages-") as scratch:
        os.chdir(scratch)
        _forget_project(root)
        try:
            checked, described = Params.parse(params), Exported.read(place)
            torch.set_num_threads(checked.trainer.threads)
            own = OwnFiles(place, root)
            user = UserConfig.load(place / file_watch.CODE, watch=own, named=described.named)
            user.preprocessing = read_preprocessing(place)
            values = described.hyperparameters
            built = BuiltModel.of(user, values, checked, place, State.open(Path(state)))
            actual = built.outputs()
        except Exception as error:  # noqa: BLE001 -- the user's code may fail in any way
            traceback.print_exc()
            problem, cure = explained(error, place, root)
            return {"problem": problem.replace(f"{place}/", "export/"), "cure": cure}
        finally:
            os.chdir("/")
    differing = difference(actual, read_tensors(Path(outputs)))
    if not differing:
        return {}
    return {
        "problem": f"there it gives different outputs than the trained model: {differing}",
        "cure": "let renate_config.py use only packages and files of its own folder: open files by "
        "`Path(__file__).parent / ...`, and list files that are read undetected in export.files in "
        "params.yaml",
    }


def explained(error: BaseException, folder: Path, project: Path) -> tuple[str, str]:
    """Return what a model that cannot be built from its folder lacks, and how to fix this."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    problem = str(error).partition("\nTo ")[0].replace(f"{folder}/", "export/")
    for each in causes:
        if isinstance(each, ForeignFileError):
            return str(each).partition("\nTo ")[0], EXPORTABLE.format(name=each.name)
        if isinstance(each, ModuleNotFoundError) and each.name:
            cure = (
                f"import {each.name} from the folder of renate_config.py, so that it is copied "
                "to the same place in export/; install it if it is a package"
            )
            return problem, cure
        if isinstance(each, FileNotFoundError) and isinstance(each.filename, str):
            name = Path(each.filename)
            if name.is_relative_to(folder):
                return problem, LIST_IT.format(name=name.relative_to(folder))
            if not name.is_absolute():
                return problem, EXPORTABLE.format(name=str(name))
    relative = EXPORTABLE.format(name="vocab.txt")
    return problem, f"if it reads a file, {relative}; and {LIST_IT.format(name='the file')}"


def difference(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return how outputs differ; empty if they are close."""
    shapes = [[(n, tuple(t.shape)) for n, t in sorted(each.items())] for each in (actual, expected)]
    if shapes[0] != shapes[1]:
        return f"their shapes are {shapes[0]}, expected {shapes[1]}"
    for name, tensor in expected.items():
        one, other = actual[name].double(), tensor.double()
        if not torch.allclose(one, other, **CLOSE, equal_nan=True):
            return f"by up to {float((one - other).abs().nan_to_num(nan=torch.inf).max()):.3g}"
    return ""


def _forget_project(root: Path) -> None:
    """Remove all traces of the project from this process: its modules and import paths."""
    file_watch.forget_all()
    sys.dont_write_bytecode = True
    for name in (*project_modules(root.resolve()), "renate_config"):
        sys.modules.pop(name, None)
    inside = file_watch.spellings(root)
    kept = [each for each in sys.path if each and not f"{each}{os.sep}".startswith(inside)]
    own = [
        each for each in sys.path if "site-packages" in Path(each).parts
    ]  # keeps a .venv inside the project
    sys.path[:] = [each for each in sys.path if each in kept or each in own]


def main() -> None:
    """Run the process of a new interpreter."""
    end_with_parent()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
