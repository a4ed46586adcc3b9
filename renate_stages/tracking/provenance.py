"""Tags about a run's origin: Git commit and branch, DVC experiment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

GIT_TIMEOUT = 10  # seconds; a tag is not worth a longer wait


def provenance_tags(project_root: Path) -> dict[str, str]:
    """Return tags about the version of the project that a run belongs to.

    Args:
        project_root: Any folder of the repository; outside a repository there are no Git tags.

    Returns:
        The tags `git.commit`, `git.branch`, `git.dirty` ("true" if `git status` lists changed,
        staged or untracked files) and `dvc.exp.name`; those that do not apply are left out.
    """
    tags = _git_tags(project_root)
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc.exp.name"] = name
    return tags


def _git_tags(project_root: Path) -> dict[str, str]:
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch"]
    try:
        status = subprocess.run(
            command,
            cwd=project_root,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}

    headers: dict[str, str] = {}
    dirty = False
    for line in status.splitlines():
        if line.startswith("# "):
            name, _, value = line[2:].partition(" ")
            headers[name] = value
        else:
            dirty = True

    tags = {"git.dirty": str(dirty).lower()}
    if headers.get("branch.oid", "(initial)") != "(initial)":
        tags["git.commit"] = headers["branch.oid"]
    if headers.get("branch.head", "(detached)") != "(detached)":
        tags["git.branch"] = headers["branch.head"]
    return tags
