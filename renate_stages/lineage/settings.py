"""Read DVC's settings of cache and remote without importing DVC."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configobj import ConfigObj
from platformdirs import site_config_dir, user_config_dir

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.lineage.commands import dvc
from renate_stages.project import Project

DVC = ("dvc", "iterative")  # application and author, which determine the paths of DVC's settings
SETTLED = "remote"  # file in `.renate/` with the path that `settle_remote` wrote


def cache_folder(project: Project) -> Path:
    """Return the folder of DVC's cache; reads the same settings files in the same order as DVC.

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


def settle_remote(project: Project) -> str | None:
    """Write the absolute path of a remote with a relative path to `.dvc/config.local`.

    `dvc push --all-tags` reads the settings from a commit, and there it resolves a relative path
    against `/`. `.dvc/config.local` belongs to this clone and has precedence. If the project has
    changed to another kind of remote, the path written earlier is removed.

    Returns:
        A message about the change, or None if nothing was changed.

    Raises:
        MalformedFileError: If a file of DVC's settings cannot be read.
    """
    remote = _Remote.read(project)
    if not remote.is_unsettled:
        return None
    if remote.path is None:
        dvc(project, "remote", "modify", "--local", "--unset", "--quiet", remote.name, "url")
        return f"dvc: this clone now uses the project's remote {remote.given}"
    modify = ("remote", "modify", "--local", "--quiet", remote.name, "url", str(remote.path))
    dvc(project, *modify)
    files.write_text(project.scratch / SETTLED, f"{remote.path}\n")
    return f"dvc: this clone uses the remote {remote.path}"


def unsettled_remote(project: Project) -> str | None:
    """Return a message if this clone's remote is not the project's, or None."""
    remote = _Remote.read(project)
    if not remote.is_unsettled or remote.here is None:
        return None
    configured = remote.path or remote.given
    return (
        f"this clone uses {remote.here}, but the project's remote is {configured}; run "
        "`renate-stages init`"
    )


@dataclass(frozen=True)
class _Remote:
    """DVC's default remote.

    Args:
        name: Name of the remote.
        given: URL or path in the project's `.dvc/config`.
        path: The absolute path, if `given` is a relative path.
        here: URL or path in `.dvc/config.local`, if set.
        settled: The path that `settle_remote` wrote last.
    """

    name: str
    given: str | None
    path: Path | None
    here: str | None
    settled: str | None

    @classmethod
    def read(cls, project: Project) -> _Remote:
        own, settled = project.root / ".dvc", project.scratch / SETTLED
        settings, local = _read(own / "config"), _read(own / "config.local")
        name = _setting(settings, "core", "remote")
        given, here = (_setting(config, f'remote "{name}"', "url") for config in (settings, local))
        relative = given and "://" not in given and not given.startswith(("/", "~"))
        path = (own / given).resolve() if given and relative else None
        known = settled.read_text("utf-8", "replace").strip() if settled.is_file() else None
        return cls(str(name), given, path, here, known)

    @property
    def is_unsettled(self) -> bool:
        """Whether `settle_remote` has something to do."""
        if self.path is not None:
            return self.here in (None, self.settled) and self.here != str(self.path)
        return self.here is not None and self.here == self.settled


def _setting(settings: dict[str, Any], section: str, name: str) -> str | None:
    block = settings.get(section)
    value = block.get(name) if isinstance(block, dict) else None
    return value if isinstance(value, str) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.is_file() and b"\0" in path.read_bytes():
            raise ValueError("it contains a NUL character")
        return ConfigObj(str(path), list_values=False, encoding="utf-8").dict()
    except Exception as error:
        cure = "correct it, or run `git checkout HEAD -- .dvc/config` if it is the project's"
        raise MalformedFileError(path, "DVC settings", str(error), cure) from error
