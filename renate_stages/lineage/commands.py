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
    "GIT_EDITOR": "true",  # a message is always given: an editor would wait where nobody sees it
    "GIT_MERGE_AUTOEDIT": "no",
    "GIT_OPTIONAL_LOCKS": "0",  # a killed `git status` leaves no lock file behind
    "GIT_TERMINAL_PROMPT": "0",
}


def git(project: Project, *arguments: str, check: bool = True) -> str:
    """Run git in the project and return what it prints, without white space at its end.

    Raises:
        CommandError: If it fails; with `check=False` an empty string is returned instead.
    """
    return run(["git", *arguments], project.root, check)


def dvc(project: Project, *arguments: str) -> str:
    """Run DVC in the project and return what it prints.

    Raises:
        CommandError: If it fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    try:
        return run(command, project.root, check=True)
    except CommandError as error:
        if "RWLock-file" not in error.output or not _remove_broken_list(project):
            raise
    return run(command, project.root, check=True)


def _remove_broken_list(project: Project) -> bool:
    """Remove DVC's list of paths at work if a DVC that was killed while writing it left it broken.

    DVC refuses every command then.
    """
    place = project.root / ".dvc" / "tmp"
    with (place / "rwlock.lock").open("a") as guard:  # held by DVC while it writes the list
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            json.loads((place / "rwlock").read_bytes())
        except BlockingIOError:
            return False
        except ValueError:
            (place / "rwlock").unlink()
            return True
    return False


def run(command: list[str], folder: Path, check: bool, say: bool = False) -> str:
    """Run a command in a folder, without anybody to answer its questions.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        check: Whether its failure is an error.
        say: Whether what it prints on stderr, such as a hook's output, is shown.

    Returns:
        What it prints; nothing where it fails and that is no error.

    Raises:
        CommandError: If it fails.
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
    """Put a folder under DVC: into the cache, its hash into a `.dvc` file. Safe to repeat.

    Args:
        project: Where it is.
        path: The folder.
        pointer: The file, in the same place as the folder; None: the one named after it.
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
