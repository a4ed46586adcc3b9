"""Fork the programs of jobs from a process that has imported the packages of their image.

A job's program imports torch and Lightning first, which takes longer than its own work. This process
has imported them, but not this library, which each job imports from the wheel that it has installed.

    python warm_python.py SOCKET
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import warm_processes

MODULES = (
    *("fsspec", "matplotlib.figure", "matplotlib.backends.backend_agg", "numpy", "omegaconf"),
    *("packaging.requirements", "pydantic", "pytorch_lightning", "rich.console", "s3fs"),
    *("safetensors.torch", "scipy.stats", "torch", "torch.distributed.run", "torch.export"),
    *("torchmetrics", "typer", "yaml"),
)
# A container's `python3`. It runs programs of this library, and torchrun, in forked processes; it
# passes its streams, waits, and exits with the same code. If it is killed, its process is killed too.
CLIENT = """\
#!{python} -SE
import json, os, signal, socket, sys
given = sys.argv[1:]
options = given[given[:1] == ["-u"]:]
module = options[1] if options[:1] == ["-m"] and len(options) > 1 else ""
if module.partition(".")[0] != "renate_stages" and module != "torch.distributed.run":
    os.execv({python!r}, sys.argv)
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([module, options[2:], sys.argv[0], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [b"%12d" % len(asked)], [0, 1, 2])
server.sendall(asked)
answers = server.makefile()
process = int(answers.readline())
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, _: os.kill(process, number))
os._exit(int(answers.readline() or 1) % 256)
"""


class WarmPython:
    """A process that forks the programs of jobs, until `end`.

    Args:
        python: Interpreter of the image, with its packages alone.
        folder: Folder for the socket and for the process, to create.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        folder.mkdir()
        self._address = str(folder / "socket")
        self._process = subprocess.Popen(
            [python, "-P", __file__, self._address],
            cwd=folder,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(folder),
                "TMPDIR": str(folder),
                "PYTHONPATH": str(Path(warm_processes.__file__).parent),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"

    def stand_in(self, commands: Path) -> None:
        """Replace the interpreter of a container by one that runs jobs' programs in forks.

        Args:
            commands: Folder with symbolic links to an interpreter, and to those links.
        """
        for each in commands.glob("python*"):
            python = each.readlink()
            if python.is_absolute():
                each.unlink()
                each.write_text(CLIENT.format(python=str(python), address=self._address))
                each.chmod(0o755)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def serve(address: str) -> None:
    """Import everything, then fork a process for each requested program."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        for each in MODULES:
            importlib.import_module(each)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                watch(connection)
            connection.close()


def watch(connection: socket.socket) -> None:
    """Run a program in a forked process, and kill it if its client is killed; then exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, *_ = socket.recv_fds(connection, 12, 3)
    if not size:  # the client was killed
        os._exit(0)
    asked = json.loads(connection.recv(int(size), socket.MSG_WAITALL))
    program = os.fork()
    if program == 0:
        connection.close()
        become(asked, streams)
    connection.sendall(b"%d\n" % program)
    ended = os.pidfd_open(program)
    ready, _, _ = select.select([connection, ended], [], [])
    if ended not in ready:
        os.killpg(program, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    if ended in ready:
        connection.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def become(asked: Sequence[Any], streams: Sequence[int]) -> None:
    """Run a program as its container's interpreter would, and exit with its code."""
    module, arguments, python, folder, environment = asked
    os.setsid()
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    enter(Path(python), environment.get("PYTHONPATH", ""))
    sys.argv = [module, *arguments]
    warm_processes.run(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))


def enter(python: Path, given: str) -> None:
    """Look for modules where an interpreter does, and start others as that interpreter.

    Args:
        python: The interpreter of the container.
        given: Its `PYTHONPATH`.
    """
    own, prefix = sys.prefix, str(python.parents[1])
    helpers = str(Path(warm_processes.__file__).parent)
    paths = [each.replace(own, prefix, 1) for each in sys.path if each not in ("", helpers)]
    sys.path[:] = ["", *filter(None, given.split(os.pathsep)), *paths]
    sys.prefix = sys.exec_prefix = prefix
    sys.executable = str(python)
    multiprocessing.set_executable(sys.executable)
    importlib.invalidate_caches()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


if __name__ == "__main__":
    serve(sys.argv[1])
