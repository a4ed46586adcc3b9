"""Run commands in forked processes, and kill them at a chosen change or moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import Sandbox
from warm_commands import TYPER, ForkedDvc
from warm_processes import DVC, WarmProcess, WarmProcesses

PATIENCE = 120.0  # seconds after which a command counts as hanging
DATE = "2026-01-01T00:00:00Z"  # date of every commit, so that equal commits have equal hashes
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
OURS = (
    *(
        f"renate_stages.cli.{each}"
        for each in ("main", "champion", "memory", "remote", "stages", "updates")
    ),
    *(f"renate_stages.actions.{each}" for each in ("forget", "init", "promote", "resolve")),
    *("renate_stages.gate.verdict", "psutil", *TYPER),
)


class Killer:
    """Audit hook that kills its process right before its n-th change or start of a command.

    Args:
        at: Number of changes before the kill; a process makes fewer than 10,000.
        root: Folder below which changes count.
        seen: File that gets one character for each change; if given, the process is not killed.
    """

    def __init__(self, at: int, root: str, seen: Path | None) -> None:
        self.left = at
        self.root = root
        self.seen = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if seen else None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.counts(event, arguments):
            return
        if self.seen is not None:
            os.write(self.seen, b".")
        elif not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        """Return whether an audit event changes a file below the root, or starts a command."""
        if event == "subprocess.Popen":
            return True
        if event == "open":
            path, _, flags = arguments
            return bool(flags & WRITING) and str(path).startswith(self.root)
        return event in CHANGES and str(arguments[0]).startswith(self.root)


is_dvc_process = False  # True in a forked process that runs DVC


def mark_dvc_process() -> None:
    """Exempt this process from kills, because it runs DVC."""
    global is_dvc_process
    is_dvc_process = True


def command() -> None:
    """Run `renate-stages` in this process.

    The first argument is the number of changes before the kill, -1 for no kill, or a file in which
    changes are counted.
    """
    from renate_stages.cli import main
    from renate_stages.lineage import commands

    at, *arguments = sys.argv[1:]
    commands.subprocess = ForkedDvc(mark_dvc_process)  # type: ignore[assignment]
    sys.argv = ["renate-stages", *arguments]
    if at != "-1":
        counted = not at.isdigit()
        killer = Killer(0 if counted else int(at), str(Path.cwd()), Path(at) if counted else None)
        sys.addaudithook(lambda event, given: None if is_dvc_process else killer(event, given))
    main.main()


@dataclass
class Commands:
    """Runs and kills commands in projects.

    Args:
        warm: Forks the commands' processes.
    """

    warm: WarmProcesses

    @classmethod
    def start(cls) -> Commands:
        """Start the process that commands are forked from."""
        return cls(WarmProcesses("killed_commands", *OURS, *DVC))

    def run(
        self,
        sandbox: Sandbox,
        *arguments: str,
        at: int | Path = -1,
        after: float | None = None,
        alone: bool = False,
    ) -> tuple[int, str]:
        """Run `renate-stages` and kill it if asked to; return its exit code and what it output.

        Args:
            sandbox: The project.
            arguments: Arguments of `renate-stages`.
            at: Number of changes before the kill, or a file in which changes are counted.
            after: Seconds until the kill of the command and of its git and DVC processes.
            alone: Whether to kill only the command, and not its git and DVC processes.
        """
        with tempfile.TemporaryFile("w+") as output:
            process = self.warm.start(
                "killed_commands:command",
                [str(at), *arguments],
                sandbox.root,
                (output.fileno(), output.fileno()),
                environment=environment(sandbox),
            )
            try:
                process.wait(after if after is not None else PATIENCE)
            except subprocess.TimeoutExpired:
                assert after is not None, f"{arguments} hangs"
                _kill(process, alone=alone)
            output.seek(0)
            return int(process.returncode or 0), output.read()


def _kill(process: WarmProcess, *, alone: bool) -> None:
    kill = os.kill if alone else os.killpg
    with suppress(ProcessLookupError):  # it has just ended
        kill(process.pid, signal.SIGKILL)
    process.wait()


def environment(sandbox: Sandbox) -> dict[str, str]:
    """Return the sandbox's environment, with the same date for all commits."""
    dates = {f"GIT_{who}_DATE": DATE for who in ("AUTHOR", "COMMITTER")}
    return {**sandbox.environment, **dates}


def copy_project(source: Sandbox, folder: Path) -> Sandbox:
    """Copy a project, with its remote and all that is next to it."""
    subprocess.run(["cp", "-a", source.root.parent, folder], check=True)
    return Sandbox(folder / source.root.name)


def recover(commands: Commands, sandbox: Sandbox) -> list[str]:
    """Follow the advice of `renate-stages status` after a kill; return what the commands output."""
    outputs = []
    until = time.monotonic() + PATIENCE
    while True:
        code, output = commands.run(sandbox, "status")
        outputs.append(output)
        if code == 0 and "interrupted:" not in output:
            return outputs
        assert time.monotonic() < until, outputs
        assert code in (0, 2) and "Traceback" not in output, output
        code, output = commands.run(sandbox, "resolve")
        outputs.append(output)
        assert code in (0, 2) and "Traceback" not in output, output
        if code:  # git or DVC of the killed command may still be running, as the message says
            time.sleep(0.2)


def snapshot(sandbox: Sandbox) -> dict[str, Any]:
    """Return everything in a project that a lineage command may change."""
    root = sandbox.root
    folders = ("parent-state", "champion", "data/incoming")
    left = [*root.glob(".*.new"), *root.glob(".*.old"), *(root / ".git").rglob("*.lock")]
    return {
        "head": _read(root / ".git" / "HEAD"),
        "refs": _git(sandbox, "for-each-ref", "--format=%(refname) %(objectname)"),
        "status": _git(sandbox, "status", "--porcelain"),
        "folders": {folder: sandbox.hashes(folder) for folder in folders},
        "intent": (root / ".renate" / "intent.json").exists(),
        "left": sorted(path.relative_to(root).as_posix() for path in left),
    }


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _git(sandbox: Sandbox, *arguments: str) -> str:
    if not (sandbox.root / ".git" / "HEAD").is_file():  # `init` has not created the repository yet
        return ""
    done = subprocess.run(
        ["git", *arguments],
        cwd=sandbox.root,
        env=environment(sandbox),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def remove(sandbox: Sandbox) -> None:
    """Remove a copy of a project; a thousand copies would fill the disk."""
    shutil.rmtree(sandbox.root.parent)
