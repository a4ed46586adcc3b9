"""Git and DVC, run in a project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from renate_stages.errors import CommandError
from renate_stages.project import Project


def git(project: Project, *arguments: str, check: bool = True) -> str:
    """Run git in the project and return what it prints, without surrounding white space.

    Raises:
        CommandError: If it fails; with `check=False` an empty string is returned instead.
    """
    return run(["git", *arguments], project.root, check)


def dvc(project: Project, *arguments: str) -> str:
    """Run DVC in the project and return what it prints.

    Raises:
        CommandError: If it fails.
    """
    return run([sys.executable, "-m", "dvc", *arguments], project.root, check=True)


def run(command: list[str], folder: Path, check: bool) -> str:
    """Run a command in a folder; what it prints on success, or, unchecked, on failure nothing."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode and check:
        shown = ["dvc", *command[3:]] if command[0] == sys.executable else command
        raise CommandError(shown, done.stderr or done.stdout)
    return "" if done.returncode else done.stdout.rstrip()


def fetch(project: Project, target: str) -> None:
    """Put what a `.dvc` file names in place, from the cache or else from the remote.

    Raises:
        CommandError: If neither has it, or a changed file is in its place.
    """
    try:
        dvc(project, "checkout", target)
    except CommandError:
        dvc(project, "pull", target)


def track(project: Project, path: Path, pointer: Path | None = None) -> None:
    """Put a folder under DVC: into the cache, its hash into a `.dvc` file.

    Args:
        project: Where it lies.
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
