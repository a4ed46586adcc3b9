"""Run Git and DVC in a project."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from renate_stages.errors import CommandError
from renate_stages.project import Project

UNATTENDED = {
    "DVC_NO_ANALYTICS": "1",
    "GIT_EDITOR": "true",  # messages are given as arguments; an editor would wait for input unseen
    "GIT_MERGE_AUTOEDIT": "no",
    "GIT_OPTIONAL_LOCKS": "0",  # a killed `git status` leaves no lock file behind
    "GIT_TERMINAL_PROMPT": "0",
}


def git(project: Project, *arguments: str, check: bool = True) -> str:
    """Run Git in the project and return its output without trailing white space.

    Raises:
        CommandError: If it fails; with `check=False` an empty string is returned instead.
    """
    return run(["git", *arguments], project.root, check)


def dvc(project: Project, *arguments: str) -> str:
    """Run DVC in the project and return its output.

    Raises:
        CommandError: If it fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    try:
        return run(command, project.root, check=True)
    except CommandError as error:
        if "RWLock-file" not in error.output or not _remove_broken_rwlock(project):
            raise
    return run(command, project.root, check=True)


def _remove_broken_rwlock(project: Project) -> bool:
    """Remove DVC's list of paths in use if it is not valid JSON; return whether it was removed.

    A DVC process that is killed while it writes the list leaves it broken, and DVC then refuses
    every command.
    """
    folder = project.root / ".dvc" / "tmp"
    with (folder / "rwlock.lock").open(
        "a"
    ) as guard:  # DVC holds this lock while it writes the list
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.loads((folder / "rwlock").read_bytes())
        except BlockingIOError:
            return False
        except ValueError:
            (folder / "rwlock").unlink()
            return True
    return False


def run(command: list[str], folder: Path, check: bool, say: bool = False) -> str:
    """Run a command in a folder, with no input and without prompts.

    Args:
        command: Program and arguments.
        folder: The working directory.
        check: Whether to raise an error if the command fails.
        say: Whether to show what the command prints on stderr, such as a hook's output.

    Returns:
        The output on stdout; empty if the command fails and `check` is false.

    Raises:
        CommandError: If the command fails and `check` is true.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env={**os.environ, **UNATTENDED},
        check=False,
    )
    if done.returncode and check:
        shown = ["dvc", *command[3:]] if command[0] == sys.executable else command
        raise CommandError(shown, done.stderr or done.stdout)
    if say and done.stderr.strip():
        print(done.stderr.rstrip(), file=sys.stderr)
    return "" if done.returncode else done.stdout.rstrip()


def track(project: Project, path: Path, pointer: Path | None = None) -> None:
    """Track a folder with DVC: copy it to the cache and write a `.dvc` file. Safe to repeat.

    Args:
        project: The project that the folder belongs to.
        path: The folder.
        pointer: The `.dvc` file to write, next to the folder; None: the one named after the folder.
    """
    if pointer is not None and pointer.is_file():
        dvc(project, "commit", "--quiet", "--force", project.relative(pointer))
        return
    dvc(project, "add", "--quiet", project.relative(path))
    if pointer is not None:
        path.with_name(f"{path.name}.dvc").rename(pointer)


def has_remote(project: Project) -> bool:
    """Return whether DVC has a default remote."""
    return bool(run([sys.executable, "-m", "dvc", "config", "core.remote"], project.root, False))
