"""Fork processes from one that has already imported what they need, which saves seconds each time.

Forked processes run the same code as new ones; only the imports are not repeated. Other tests start
new processes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

# Modules that DVC's commands import when they need them, and a function to call once.
DVC = (
    *("dvc.cachemgr", "dvc.cli", "dvc.cli.parser", "dvc.daemon", "dvc.data_cloud"),
    *("dvc.dependency", "dvc.lock", "dvc.output", "dvc.rwlock", "dvc.scm", "dvc.stage.cache"),
    *("dvc.repo", "dvc.repo.add", "dvc.repo.artifacts", "dvc.repo.checkout", "dvc.repo.commit"),
    *("dvc.repo.datasets", "dvc.repo.graph", "dvc.repo.index", "dvc.repo.metrics"),
    *("dvc.repo.open_repo", "dvc.repo.params", "dvc.repo.plots", "dvc.repo.push"),
    *("dvc.repo.reproduce", "dvc.repo.stage", "dvc.repo.status", "dvc.utils.strictyaml"),
    *("dvc_data.hashfile.build", "dvc_data.hashfile.db.local", "dvc_data.index"),
    *("dulwich.ignore", "dulwich.index", "dulwich.repo", "dulwich.worktree", "networkx", "pygit2"),
    *("dvc._debug", "dvc.dirs", "dvc.repo.trie", "dvc_data.hashfile.status", "ruamel.yaml"),
    *("dvc_data.hashfile._progress", "fsspec.implementations.memory", "rich.status"),
    *("configobj", "dvc_data.index.checkout", "warm_processes:build_parser_of_dvc"),
)

# The server forks a watcher, which forks the worker and sends the worker's id and exit code.
SERVER = """
import gc, importlib, json, os, signal, socket, sys
import warm_processes

def work(request, descriptors):
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.dup2(descriptors[1], 1)
    os.dup2(descriptors[2], 2)
    sys.argv = [request["main"], *(str(d) for d in descriptors[3:]), *request["arguments"]]
    module, _, name = request["main"].partition(":")
    warm_processes.run(lambda: getattr(importlib.import_module(module), name)())

def watch(request, descriptors):
    replies = socket.socket(fileno=descriptors[0])
    process = os.fork()
    if process == 0:
        replies.detach()
        os.close(descriptors[0])
        work(request, descriptors)
    for each in descriptors[1:]:
        os.close(each)
    replies.sendall(b"%d\\n" % process)
    replies.sendall(b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    os._exit(0)

connection = socket.socket(fileno=int(sys.argv[1]))
os.set_inheritable(connection.fileno(), False)
warm_processes.cache_entry_points()
warm_processes.skip_flushing()
warm_processes.prepare(sys.argv[2:])
gc.freeze()  # shared objects stay untouched, so that forks do not copy them
while True:
    message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 8)
    if not message:
        break
    if os.fork() == 0:
        connection.close()
        watch(json.loads(message), descriptors)
    for each in descriptors:
        os.close(each)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


def build_parser_of_dvc() -> None:
    """Build the parser of DVC's arguments, half of the time of most commands, before forking."""
    from dvc.cli import parser

    parser.get_main_parser = functools.cache(parser.get_main_parser)
    parser.get_main_parser()


def skip_flushing() -> None:
    """Do not wait until files are on the disk, which only a machine that loses power needs."""
    os.fsync = lambda _: None


def leave_pictures_blank(replace: Callable[[Any, str, Any], object]) -> None:
    """Let matplotlib write empty pictures: drawing takes more than half of the time of `export`.

    Commands in new processes, and the unit tests of pictures, draw them.

    Args:
        replace: `setattr`, or a function that also restores the attribute later.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def print_png(_: FigureCanvasAgg, target: Path, **__: Any) -> None:
        target.write_bytes(blank_picture())

    replace(FigureCanvasAgg, "print_png", print_png)


@functools.cache
def blank_picture() -> bytes:
    """Return a PNG file of one pixel."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    return stream.getvalue()


def cache_entry_points() -> None:
    """Read the plugins of Lightning once; call this before Lightning is imported.

    Each of Lightning's trainers reads the metadata of all installed packages anew for its plugins,
    which takes longer than the training of most tests.
    """
    read = importlib.metadata.entry_points
    cached = functools.cache(read)

    def entry_points(**params: Any) -> Any:
        return (cached if "lightning" in params.get("group", "") else read)(**params)

    importlib.metadata.entry_points = entry_points


def prepare(steps: Iterable[str]) -> None:
    """Import modules; for `module:name`, also call the function."""
    for step in steps:
        module, _, name = step.partition(":")
        imported = importlib.import_module(module)
        if name:
            getattr(imported, name)()


def run(program: Callable[[], object]) -> None:
    """Call a program in a forked process, and exit with its code."""
    code: Any = 1
    try:
        code = program()
        code = code if isinstance(code, int) else 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 -- the process must never continue as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def run_python() -> None:
    """Run what the interpreter would run with the arguments in `sys.argv`: `-m MODULE` or a script.

    Of the interpreter's options only `-P`, which changes nothing here, and `-W` are supported.
    """
    arguments = sys.argv[1:]
    while arguments[0] in ("-P", "-W"):
        option = arguments.pop(0)
        if option == "-W":
            warnings.simplefilter(arguments.pop(0))  # type: ignore[arg-type]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


class WarmProcesses:
    """Forks processes that have imported some modules.

    Args:
        modules: Modules to import before the first fork; for `module:name`, also call the function.
    """

    def __init__(self, *modules: str) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-c", SERVER, str(theirs.fileno()), *modules]
        folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self._server = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
        )
        theirs.close()

    def start(
        self,
        main: str,
        arguments: Sequence[str],
        folder: Path,
        streams: tuple[int, int],
        *sockets: int,
        environment: Mapping[str, str] = os.environ,
    ) -> WarmProcess:
        """Call a function in a forked process, as a command with these arguments.

        Args:
            main: The function, as `module:name`; it returns the exit code.
            arguments: Rest of `sys.argv`, after the sockets' descriptors.
            folder: Working folder.
            streams: Descriptors of standard output and standard error.
            sockets: Descriptors to pass to the process.
            environment: Environment variables.
        """
        request = {
            "main": main,
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
        }
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno(), *streams, *sockets]
            socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
        return WarmProcess(ours)

    def close(self) -> None:
        self._connection.close()
        self._server.wait()


class WarmProcess:
    """The part of the interface of `subprocess.Popen` that the library uses."""

    def __init__(self, replies: socket.socket) -> None:
        self._replies: IO[bytes] = replies.makefile("rb")
        replies.close()
        self.pid = int(self._replies.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._replies], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._replies], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a warm process", timeout or 0)
            self.returncode = int(self._replies.readline())
            self._replies.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the process has ended meanwhile
                os.kill(self.pid, signal.SIGKILL)


class WarmPython:
    """Replaces the module `subprocess` where Python is run; forks its processes instead.

    Args:
        warm: Forks the processes.
    """

    def __init__(self, warm: WarmProcesses) -> None:
        self._warm = warm

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] = os.environ,
        streams: tuple[int, int] = (1, 2),
    ) -> WarmProcess:
        """Start a command of Python in this folder; see `WarmProcesses.start`."""
        assert command[0] == sys.executable
        main, arguments = "warm_processes:run_python", list(command[1:])
        return self._warm.start(main, arguments, Path.cwd(), streams, environment=environment)

    def run(
        self, command: list[str], *, check: bool, capture_output: bool = False, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, like `subprocess.run`; options other than `env` and `text` have no use."""
        environment = options.pop("env", os.environ)
        assert options.keys() <= {"text"}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            streams = (out.fileno(), err.fileno()) if capture_output else (1, 2)
            code = self.start(command, environment, streams).wait()
            for each in (out, err):
                each.seek(0)
            done = subprocess.CompletedProcess(command, code, out.read(), err.read())
        if check:
            done.check_returncode()
        return done


class WarmDvc:
    """Replaces the module `subprocess` where Git and DVC are run; forks DVC's processes."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self) -> None:
        self._warm = WarmProcesses(*DVC)
        self.close = self._warm.close

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "dvc"]:
            return subprocess.run(command, **options)  # noqa: PLW1510 -- the caller decides
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self._warm.start(
                "dvc.cli:main",
                command[3:],
                options["cwd"],
                (out.fileno(), err.fileno()),
                environment=options["env"],
            )
            code = process.wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), err.read())
