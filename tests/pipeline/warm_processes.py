"""Processes that are forked from one which has imported what they need: seconds once, not each time.

What runs in them is the very code that runs in processes of their own; only imports are not
repeated. That it also starts from nothing is for other tests, with real processes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

# What DVC's commands import, each when it needs it.
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
)

# It forks a process that watches, and this the one that works: what it says is an id, then a code.
SERVER = """
import gc, importlib, json, os, signal, socket, sys, traceback

def work(asked, descriptors):
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.dup2(descriptors[1], 1)
    os.dup2(descriptors[2], 2)
    sys.argv = [asked["main"], *(str(d) for d in descriptors[3:]), *asked["arguments"]]
    module, _, name = asked["main"].partition(":")
    code = 1
    try:
        code = getattr(importlib.import_module(module), name)()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)

def watch(asked, descriptors):
    said = socket.socket(fileno=descriptors[0])
    process = os.fork()
    if process == 0:
        said.detach()
        os.close(descriptors[0])
        work(asked, descriptors)
    for each in descriptors[1:]:
        os.close(each)
    said.sendall(b"%d\\n" % process)
    said.sendall(b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    os._exit(0)

connection = socket.socket(fileno=int(sys.argv[1]))
os.set_inheritable(connection.fileno(), False)
for each in sys.argv[2:]:
    module, _, name = each.partition(":")
    imported = importlib.import_module(module)
    if name:
        getattr(imported, name)()
gc.freeze()  # what all processes share is not touched, and so not copied
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


class WarmProcesses:
    """Forks processes that have imported some modules.

    Args:
        modules: Imported once, before the first process; of `module:name` the function is called.
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
        """Call a function, `module:name`, in a new process, as the command of these arguments.

        Args:
            main: The function; what it returns is the exit code.
            arguments: Of `sys.argv`, after the sockets' descriptors.
            folder: To work in.
            streams: Where it prints to.
            sockets: Descriptors that it takes over.
            environment: Its variables.
        """
        asked = {
            "main": main,
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
        }
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno(), *streams, *sockets]
            socket.send_fds(self._connection, [json.dumps(asked).encode()], descriptors)
        return WarmProcess(ours)

    def close(self) -> None:
        self._connection.close()
        self._server.wait()


class WarmProcess:
    """What the library asks of a `subprocess.Popen`."""

    def __init__(self, said: socket.socket) -> None:
        self._said: IO[bytes] = said.makefile("rb")
        said.close()
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._said], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a warm process", timeout or 0)
            self.returncode = int(self._said.readline())
            self._said.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, signal.SIGKILL)


class WarmDvc:
    """Stands for the module `subprocess` where Git and DVC are run: forks DVC's processes."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self) -> None:
        self._warm = WarmProcesses(*DVC)
        self.close = self._warm.close

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "dvc"]:
            return subprocess.run(command, **options)  # noqa: PLW1510 -- the caller says
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
