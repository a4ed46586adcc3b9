"""DVC's settings: where its cache and its remote are. Read without importing DVC."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from configobj import ConfigObj
from platformdirs import site_config_dir, user_config_dir

from renate_stages.errors import MalformedFileError
from renate_stages.lineage.commands import dvc
from renate_stages.project import Project

DVC = ("dvc", "iterative")  # its name and its author's, by which its settings are found


def cache_folder(project: Project) -> Path:
    """Return the folder of DVC's cache, by the same files in the same order as DVC.

    Raises:
        MalformedFileError: If a file of DVC's settings cannot be read.
    """
    own = project.root / ".dvc"
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user_config_dir(*DVC)
    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or site_config_dir(*DVC)
    for place in (
        own / "config.local",
        own / "config",
        Path(user) / "config",
        Path(system) / "config",
    ):
        given = _setting(_read(place), "cache", "dir")
        if given is not None:
            return place.parent / Path(given).expanduser()
    return own / "cache"


def settle_remote(project: Project) -> Path | None:
    """Give this clone the absolute path of a remote that the project names by a relative one.

    `dvc push --all-tags` reads the settings out of a commit, where it takes a relative path for one
    below `/`. What `.dvc/config.local` says is for this clone alone, and goes before.

    Returns:
        The path, where it was written now; None where nothing was to do.

    Raises:
        MalformedFileError: If a file of DVC's settings cannot be read.
    """
    name, place, now = _remote(project)
    if place is None or now == str(place):
        return None
    dvc(project, "remote", "modify", "--local", "--quiet", name, "url", str(place))
    return place


def moved_remote(project: Project) -> str | None:
    """Return what to do where this clone names another remote than the project; None: nothing."""
    _, place, now = _remote(project)
    if place is None or now in (None, str(place)):
        return None
    return (
        f".dvc/config.local names {now}, and the project {place}: `renate-stages init` settles it"
    )


def _remote(project: Project) -> tuple[str, Path | None, str | None]:
    """Return the default remote's name, its path where it is a relative one, and this clone's."""
    own = project.root / ".dvc"
    settings, local = _read(own / "config"), _read(own / "config.local")
    name = _setting(settings, "core", "remote")
    given, now = (_setting(each, f'remote "{name}"', "url") for each in (settings, local))
    if not given or "://" in given or given.startswith(("/", "~")):
        return str(name), None, now
    return str(name), (own / given).resolve(), now


def _setting(settings: dict[str, Any], section: str, name: str) -> str | None:
    found = settings.get(section)
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return ConfigObj(str(path), list_values=False, encoding="utf-8").dict()
    except Exception as error:
        raise MalformedFileError(path, "settings of DVC", str(error)) from error
