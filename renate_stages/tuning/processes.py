"""Start and end the processes of trials, forked or new.

Both kinds of processes, and their children, end when the search ends for any reason.
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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from renate_stages.errors import ForkServerError
from renate_stages.project import Project
from renate_stages.tuning.fork_server import REQUEST

KILLED = -int(signal.SIGKILL)


class Processes(Protocol):
    """Starts and kills processes, which are identified by numbers."""

    def start(self, number: int, connection: socket.socket) -> None:
        """Start a process for a trial; it gets one end of a connection."""
        ...

    def kill(self, number: int) -> None:
        """Kill a process and its children."""
        ...

    def ended(self) -> dict[int, int]:
        """Return the exit codes, by number, of processes that ended since the last call."""
        ...

    def close(self) -> None:
        """Kill all remaining processes."""
        ...


class ForkedProcesses:
    """Trials that are forked from a server.

    The server is started at once, so that it is ready when the first trial needs it.

    Args:
        project: A project in which `prepare` and `restore-state` have run.
        scratch: An empty folder.
    """

    def __init__(self, project: Project, scratch: Path) -> None:
        self._command = [str(project.root), str(scratch)]
        self._codes: dict[int, int] = {}
        self._running: set[int] = set()
        self._launch()

    def start(self, number: int, connection: socket.socket) -> None:
        """Start a trial; if the server has ended, start a new one first.

        Raises:
            ForkServerError: If the server fails to start.
        """
        if self._process.poll() is not None and self._is_ready:
            self._read(wait=False)
            self._connection.close()
            self._launch()
        while not self._is_ready:
            self._read(wait=True)
        request = REQUEST.pack(b"s", number)
        socket.send_fds(self._connection, [request], [connection.fileno()])
        self._running.add(number)

    def kill(self, number: int) -> None:
        with suppress(OSError):  # the server has ended, and with it all forked processes
            self._connection.sendall(REQUEST.pack(b"k", number))

    def ended(self) -> dict[int, int]:
        self._read(wait=False)
        codes, self._codes = self._codes, {}
        return codes

    def close(self) -> None:
        self._connection.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _launch(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- closed in close()
        self._is_ready, self._partial = False, b""
        self._connection, theirs = socket.socketpair()
        module = "renate_stages.tuning.fork_server"
        self._process = _popen(module, theirs, *self._command, log=self._log)
        theirs.close()

    def _read(self, wait: bool) -> None:
        """Read the server's messages; if `wait` is true, wait for at least some bytes."""
        while select.select([self._connection], [], [], None if wait else 0)[0]:
            wait = False
            piece = self._connection.recv(65536)
            if not piece:
                self._die()
                return
            *lines, self._partial = (self._partial + piece).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        self._is_ready |= "ready" in message
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
            self._running.discard(message["ended"])

    def _die(self) -> None:
        """Record all trials as killed, because they ended with the server."""
        self._process.wait()
        self._codes |= dict.fromkeys(self._running, KILLED)
        self._running.clear()
        if not self._is_ready:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            code = self._process.returncode
            raise ForkServerError("\n".join([f"it ended with code {code}", *lines[-20:]]))


class FreshProcesses:
    """Trials that each run in a new interpreter.

    Args:
        project: A project in which `prepare` and `restore-state` have run.
    """

    def __init__(self, project: Project) -> None:
        self._command = [str(project.root)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int, connection: socket.socket) -> None:
        module = "renate_stages.tuning.fresh_process"
        self._running[number] = _popen(module, connection, *self._command, log=subprocess.DEVNULL)

    def kill(self, number: int) -> None:
        if number in self._running:
            with suppress(ProcessLookupError):
                os.killpg(self._running[number].pid, signal.SIGKILL)

    def ended(self) -> dict[int, int]:
        codes = {}
        for number, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                self.kill(number)  # its children may still be running
                codes[number] = code
                del self._running[number]
        return codes

    def close(self) -> None:
        for number, process in list(self._running.items()):
            self.kill(number)
            process.wait()
        self._running.clear()


def _popen(
    module: str, connection: socket.socket, *arguments: str, log: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start one of our modules in a new session, so that Ctrl-C reaches only the stage."""
    descriptor = connection.fileno()
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(descriptor), *arguments],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
