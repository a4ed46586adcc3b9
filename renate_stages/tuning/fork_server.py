"""The process from which trials are forked; it has all imports done and the data open.

    python -m renate_stages.tuning.fork_server SOCKET PROJECT SCRATCH

It runs no torch operation, does not load the user's code and does not use CUDA, so a forked process
behaves like a new one. A request over SOCKET has five bytes: `s` and a new number forks a process,
whose own socket is sent along; `k` and a number kills that process and its children. The server
sends {"ready": true} once, and {"ended": 3, "code": 0} when a process ends. When the socket is
closed, because the search has ended or was killed, it kills all remaining processes.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from renate_stages.processes import end_with_parent, heavy_imports
from renate_stages.project import Project

if TYPE_CHECKING:
    from renate_stages.tuning.trial import TrialInputs

REQUEST = struct.Struct("!cI")


class Server:
    """Forks processes for trials and reports their end.

    Args:
        connection: Connection to the search.
        inputs: The inputs of all trials.
    """

    def __init__(self, connection: socket.socket, inputs: TrialInputs) -> None:
        self.connection = connection
        self.inputs = inputs
        self.children: dict[int, int] = {}  # process id by the number in requests

    def serve(self) -> None:
        """Handle requests until the search closes its end of the connection."""
        woken, waker = socket.socketpair()
        woken.setblocking(False)
        waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self.say(ready=True)
        while True:
            readable, _, _ = select.select([self.connection, woken], [], [])
            if woken in readable:
                woken.recv(4096)
                self.bury()
            if self.connection in readable and not self.take():
                break
        for number in list(self.children):
            self.kill(number)

    def take(self) -> bool:
        """Handle one request; return False if the connection is closed."""
        message, sockets, _, _ = socket.recv_fds(self.connection, REQUEST.size, 1)
        if not message:
            return False
        verb, number = REQUEST.unpack(message)
        if verb == b"s":
            self.start(number, sockets[0])
        else:
            self.kill(number)
        return True

    def start(self, number: int, descriptor: int) -> None:
        """Fork a process for a trial as the leader of a new process group."""
        process = os.fork()
        if process == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setpgid(0, 0)
                end_with_parent()
                self.connection.close()
                code = self.run(descriptor)
                sys.stdout.flush()
                sys.stderr.flush()
            except SystemExit:
                code = 0
            except BaseException:  # noqa: BLE001 -- the child must never continue as a server
                traceback.print_exc()
            finally:
                os._exit(code)
        with suppress(OSError):  # the child has already done this itself, or has ended
            os.setpgid(process, process)
        os.close(descriptor)
        self.children[number] = process

    def run(self, descriptor: int) -> int:
        from renate_stages.tuning import trial
        from renate_stages.tuning.channel import TrialChannel

        channel = TrialChannel(socket.socket(fileno=descriptor))
        return trial.work(channel, lambda _: self.inputs)

    def kill(self, number: int) -> None:
        """Kill a process and its children, if it is still running."""
        if number in self.children:
            with suppress(ProcessLookupError):
                os.killpg(self.children[number], signal.SIGKILL)

    def bury(self) -> None:
        """Report processes that have ended, and kill their children."""
        for number, process in list(self.children.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                self.kill(number)
                del self.children[number]
                self.say(ended=number, code=os.waitstatus_to_exitcode(status))

    def say(self, **message: object) -> None:
        with suppress(OSError):  # if the search has ended, the next read notices it
            self.connection.sendall(json.dumps(message).encode() + b"\n")


def import_all() -> None:
    """Import all packages that a trial needs, and check that the process can still be forked.

    Raises:
        RuntimeError: If an import started a thread or CUDA, which do not work in a forked process.
    """
    with heavy_imports():
        import torch

        with suppress(ImportError):
            import omegaconf  # noqa: F401 -- Lightning imports it with each first checkpoint

        from renate_stages.learners import registry
        from renate_stages.tuning import trial  # noqa: F401

        for name in registry.LEARNERS:
            registry.learner_class(name)
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        raise RuntimeError(f"an imported package has started threads: {names}")
    if torch.cuda.is_initialized():
        raise RuntimeError("an imported package has initialized CUDA")


def main() -> None:
    """Import packages, open the inputs and handle requests."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    from renate_stages.tuning.trial import TrialInputs
    from renate_stages.user.declared_files import DeclaredFiles

    root, scratch = map(Path, sys.argv[2:])
    inputs = TrialInputs.open(Project.at(root), scratch)
    DeclaredFiles.read(inputs.project.root)  # parsed once for all trials
    gc.freeze()
    Server(connection, inputs).serve()


if __name__ == "__main__":
    main()
