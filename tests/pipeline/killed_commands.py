"""Commands that are killed, each in a process forked from one that has imported all it needs."""

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

PATIENCE = 120.0  # seconds until a command is taken to hang
DATE = "2026-01-01T00:00:00Z"  # of every commit, so that equal ones have equal hashes
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
    """Kills its process right before it changes something for the n-th time, or starts a command.

    Args:
        at: How many changes are let through; a process makes fewer than 10,000.
        root: Below it, changes count.
        seen: File to which one character is written for each change; the process itself is let live.
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
        """Return whether an event of Python's changes something below the root."""
        if event == "subprocess.Popen":
            return True
        if event == "open":
            path, _, flags = arguments
            return bool(flags & WRITING) and str(path).startswith(self.root)
        return event in CHANGES and str(arguments[0]).startswith(self.root)


let_live = False  # of a process that DVC has become


def begin_dvc() -> None:
    """Let this process live: it becomes DVC."""
    global let_live
    let_live = True


def command() -> None:
    """Be `renate-stages`: the first argument says after how many changes to be killed, or where to
    count them; -1 lets the command live.
    """
    from renate_stages.cli import main
    from renate_stages.lineage import commands

    at, *arguments = sys.argv[1:]
    commands.subprocess = ForkedDvc(begin_dvc)  # type: ignore[assignment]
    sys.argv = ["renate-stages", *arguments]
    if at != "-1":
        counted = not at.isdigit()
        killer = Killer(0 if counted else int(at), str(Path.cwd()), Path(at) if counted else None)
        sys.addaudithook(lambda event, given: None if let_live else killer(event, given))
    main.main()


@dataclass
class Commands:
    """Runs and kills commands in projects.

    Args:
        warm: Forks them.
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
        """Run a command of ours, perhaps to its violent end; return its exit code and what it said.

        Args:
            sandbox: The project.
            arguments: Of `renate-stages`.
            at: How many changes it may make before it is killed, or a file that counts them.
            after: Seconds after which it is killed, and git and DVC under it.
            alone: Whether git and DVC under it are let live then.
        """
        with tempfile.TemporaryFile("w+") as said:
            process = self.warm.start(
                "killed_commands:command",
                [str(at), *arguments],
                sandbox.root,
                (said.fileno(), said.fileno()),
                environment=environment(sandbox),
            )
            try:
                process.wait(after if after is not None else PATIENCE)
            except subprocess.TimeoutExpired:
                assert after is not None, f"{arguments} hangs"
                _kill(process, alone=alone)
            said.seek(0)
            return int(process.returncode or 0), said.read()


def _kill(process: WarmProcess, *, alone: bool) -> None:
    kill = os.kill if alone else os.killpg
    with suppress(ProcessLookupError):  # it has just ended
        kill(process.pid, signal.SIGKILL)
    process.wait()


def environment(sandbox: Sandbox) -> dict[str, str]:
    """Return the sandbox's environment, with one date for all commits."""
    dates = {f"GIT_{who}_DATE": DATE for who in ("AUTHOR", "COMMITTER")}
    return {**sandbox.environment, **dates}


def copied(source: Sandbox, folder: Path) -> Sandbox:
    """Copy a project, with its remote and all that is next to it."""
    subprocess.run(["cp", "-a", source.root.parent, folder], check=True)
    return Sandbox(folder / source.root.name)


def recover(commands: Commands, sandbox: Sandbox) -> list[str]:
    """Do what `renate-stages status` says after an interruption; return what was said."""
    told = []
    until = time.monotonic() + PATIENCE
    while True:
        code, said = commands.run(sandbox, "status")
        told.append(said)
        if code == 0 and "interrupted:" not in said:
            return told
        assert time.monotonic() < until, told
        assert code in (0, 2) and "Traceback" not in said, said
        code, said = commands.run(sandbox, "resolve")
        told.append(said)
        assert code in (0, 2) and "Traceback" not in said, said
        if code:  # git or DVC of the killed command may still be at work: the message says so
            time.sleep(0.2)


def standing(sandbox: Sandbox) -> dict[str, Any]:
    """Return all of a project that a command which changes the lineage may change."""
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
    if not (sandbox.root / ".git" / "HEAD").is_file():  # `init` has not got there
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
    """Remove a copy of a project: a thousand would fill a disk."""
    shutil.rmtree(sandbox.root.parent)
