"""Remove lock files that killed Git processes left behind."""

from __future__ import annotations

import time
from pathlib import Path

from renate_stages.errors import GitBusyError
from renate_stages.lineage.commands import git
from renate_stages.project import Project

PATIENCE = 10.0  # seconds to wait for a running Git process
SLACK = 2.0  # seconds by which a file's time may differ from the clock


def clear_git_locks(project: Project, since: float) -> None:
    """Remove the lock files of Git processes that were killed.

    Args:
        project: A repository in which one of our commands was interrupted.
        since: When that command began, in Unix seconds; older lock files belong to someone else.

    Raises:
        GitBusyError: If a Git process is still running in the repository.
    """
    git_dir = git(project, "rev-parse", "--absolute-git-dir", check=False)
    folder = Path(git_dir or project.root / ".git")  # a killed `git init` leaves no repository
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
    """Return whether a Git process may be running in a folder.

    Processes whose working directory we may not read are counted too.
    """
    import psutil

    for process in psutil.process_iter(["name", "cwd"]):
        name, cwd = process.info["name"] or "", process.info["cwd"]
        if name.startswith("git") and (cwd is None or Path(cwd).is_relative_to(root)):
            return True
    return False
