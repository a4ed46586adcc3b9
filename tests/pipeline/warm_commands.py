"""`dvc` and `renate-stages` as commands that are forked from a process which has imported all they need.

A real process of a stage imports torch and Lightning first, which takes longer than the stage itself. What
runs here is the same code, called by the same names in `PATH`; only the imports are not repeated. That the
commands also start from nothing is what other tests show: the README's, those of interruptions, of devices
and of jobs in the cloud start real processes.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from warm_processes import DVC

COMMANDS = {"dvc": "dvc.cli", "renate-stages": "renate_stages.cli.main"}
OURS = (
    *(
        "renate_stages.stages.prepare",
        "renate_stages.stages.export",
        "renate_stages.api.training_job",
    ),
    *(
        "renate_stages.actions.resolve",
        "renate_stages.actions.forget",
        "renate_stages.actions.promote",
    ),
    *("renate_stages.actions.init", "renate_stages.gate.verdict", "renate_stages.actions.publish"),
    *("renate_stages.tuning.update_search", "renate_stages.reporting.pictures", "psutil"),
    *("renate_stages.training.measured_update", "renate_stages.export.clean_build"),
)
# What stands in PATH for a command. It passes its streams on, waits, and ends as the other did.
CLIENT = """\
#!{python} -SE
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [b"%12d" % len(asked)], [0, 1, 2])
server.sendall(asked)
answers = server.makefile()
process = int(answers.readline())
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, _: os.kill(process, number))
os._exit(int(answers.readline() or 1) % 256)
"""


@cache
def folder() -> Path:
    """Return the folder with the commands, and start the process that they are forked from."""
    place = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(place / "socket")
    for name in COMMANDS:
        client = place / "bin" / name
        client.parent.mkdir(exist_ok=True)
        client.write_text(CLIENT.format(python=sys.executable, address=address, name=name))
        client.chmod(0o755)
    (place / "home").mkdir()
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "HOME": str(place / "home"),
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
    }
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "warm_commands", address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
    )

    def end() -> None:
        server.kill()
        server.communicate()
        shutil.rmtree(place, ignore_errors=True)

    atexit.register(end)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    return place / "bin"


def serve(address: str) -> None:
    """Import everything, then fork a process for each command that is asked for."""
    from renate_stages.tuning.fork_server import import_all

    import_all()
    for each in (*OURS, *DVC):
        importlib.import_module(each)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for those that answer
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Run one command: say the number of its process, and then its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, *_ = socket.recv_fds(connection, 12, 3)
    name, arguments, place, environment = json.loads(connection.recv(int(size), socket.MSG_WAITALL))
    process = os.fork()
    if process == 0:
        connection.close()
        os.chdir(place)
        os.environ.clear()
        os.environ.update(environment)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.argv = [name, *arguments]
        run(COMMANDS[name])
    for each in streams:
        os.close(each)
    connection.sendall(b"%d\n" % process)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    connection.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def run(module: str) -> None:
    """Be a command to its end."""
    from renate_stages.lineage import commands

    commands.subprocess = ForkedDvc()  # type: ignore[assignment]
    code: Any = 1
    try:
        code = importlib.import_module(module).main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 -- the process must never go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


class ForkedDvc:
    """Stands for the module `subprocess` where Git and DVC are run: forks DVC instead of starting it.

    Args:
        begin: Is called in each process that becomes DVC.
    """

    DEVNULL = subprocess.DEVNULL

    def __init__(self, begin: Callable[[], object] = lambda: None) -> None:
        self.begin = begin

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:3] != [sys.executable, "-m", "dvc"]:
            return subprocess.run(command, **options)  # noqa: PLW1510 -- the caller says
        sys.audit("subprocess.Popen", command[0], command, None, None)  # for who counts these
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = os.fork()
            if process == 0:
                self.begin()
                become_dvc(command[3:], options, out.fileno(), err.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            for each in (out, err):
                each.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), err.read())


def become_dvc(arguments: list[str], options: dict[str, Any], out: int, err: int) -> None:
    """Be DVC in this process, to its end."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(options["cwd"])
    os.environ.update(options["env"])
    sys.argv = ["dvc", *arguments]
    run("dvc.cli")


if __name__ == "__main__":
    serve(sys.argv[1])
