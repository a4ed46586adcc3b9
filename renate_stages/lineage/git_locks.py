"""Remove lock files that a killed Git process left behind."""

from __future__ import annotations

import time
from pathlib import Path

from renate_stages.errors import GitBusyError
from renate_stages.lineage.commands import git
from renate_stages.project import Project

PATIENCE = 10.0  # seconds for which a running git is waited for
SLACK = 2.0  # seconds by which the times of file systems may differ


def clear_git_locks(project: Project, since: float) -> None:
    """Remove the lock files of git processes that were killed.

    Args:
        project: A repository in which one of our commands was interrupted.
        since: When that command began, in Unix seconds; older lock files are of somebody else.

    Raises:
        GitBusyError: If a git process is at work in the repository.
    """
    found = git(project, "rev-parse", "--absolute-git-dir", check=False)
    folder = Path(found or project.root / ".git")  # a killed `git init` left no repository yet
    until = time.monotonic() + PATIENCE
    while left := _locks(folder, since - SLACK):
        if not _git_is_running(project.root):
            for path in left:
                path.unlink(missing_ok=True)
            return
        if time.monotonic() > until:
            raise GitBusyError(project.root, [path.relative_to(folder) for path in left])
        time.sleep(0.1)


def _locks(folder: Path, since: float) -> list[Path]:
    found = [*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")]
    return [path for path in found if path.stat().st_mtime >= since]


def _git_is_running(root: Path) -> bool:
    """Return whether a git process works in a folder, or may do so: one that we may not look at."""
    import psutil

    for process in psutil.process_iter(["name", "cwd"]):
        name, place = process.info["name"] or "", process.info["cwd"]
        if name.startswith("git") and (place is None or Path(place).is_relative_to(root)):
            return True
    return False
