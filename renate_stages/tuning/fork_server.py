"""The process that trials are forked from, with all imports done and the data open.

    python -m renate_stages.tuning.fork_server SOCKET PROJECT SCRATCH

It runs no operation of torch, loads nothing of the user's and does not touch CUDA: a process forked
from it is as a fresh one. Over SOCKET it gets five bytes for each thing to do: `s` and a new
number forks a process, with its own socket beside; `k` and a number kills it, and all that it has
started. It says {"ready": true} once, and {"ended": 3, "code": 0} for each process. When the socket
closes, because the search is over or dead, it kills what is left.
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
    """Forks trials and buries them.

    Args:
        connection: To the search.
        inputs: What all trials read.
    """

    def __init__(self, connection: socket.socket, inputs: TrialInputs) -> None:
        self.connection = connection
        self.inputs = inputs
        self.children: dict[int, int] = {}  # process id by number

    def serve(self) -> None:
        """Do what is asked for until the search closes its end."""
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
        """Do one thing that is asked for; return whether there may be more."""
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
        """Fork a process for a trial, the leader of a group."""
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
            except BaseException:  # noqa: BLE001 -- the child must never go on as a server
                traceback.print_exc()
            finally:
                os._exit(code)
        with suppress(OSError):  # it has done so itself, or has ended
            os.setpgid(process, process)
        os.close(descriptor)
        self.children[number] = process

    def run(self, descriptor: int) -> int:
        from renate_stages.tuning import trial
        from renate_stages.tuning.channel import TrialChannel

        channel = TrialChannel(socket.socket(fileno=descriptor))
        return trial.work(channel, lambda _: self.inputs)

    def kill(self, number: int) -> None:
        """Kill a process and all that it started; one that has ended is left alone."""
        if number in self.children:
            with suppress(ProcessLookupError):
                os.killpg(self.children[number], signal.SIGKILL)

    def bury(self) -> None:
        """Take notice of the processes that have ended; what they started ends too."""
        for number, process in list(self.children.items()):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                self.kill(number)
                del self.children[number]
                self.say(ended=number, code=os.waitstatus_to_exitcode(status))

    def say(self, **message: object) -> None:
        with suppress(OSError):  # the search is gone, which the next read shows
            self.connection.sendall(json.dumps(message).encode() + b"\n")


def import_all() -> None:
    """Import what a trial needs, and check that nothing has started to work by that.

    Raises:
        RuntimeError: If a thread runs or CUDA is in use: a forked process could not go on with it.
    """
    with heavy_imports():
        import torch

        from renate_stages.learners import registry
        from renate_stages.tuning import trial  # noqa: F401

        registry.classes()
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        raise RuntimeError(f"an imported package has started threads: {names}")
    if torch.cuda.is_initialized():
        raise RuntimeError("an imported package has initialised CUDA")


def main() -> None:
    """Import, open the inputs, serve."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    from renate_stages.tuning.trial import TrialInputs

    root, scratch = map(Path, sys.argv[2:])
    inputs = TrialInputs.open(Project.at(root), scratch)
    gc.freeze()
    Server(connection, inputs).serve()


if __name__ == "__main__":
    main()
