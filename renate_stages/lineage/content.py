"""Compute and look up DVC's content hashes of files and folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.lineage.settings import cache_folder
from renate_stages.project import Project

IGNORED = {"__pycache__", ".git", ".dvc"}  # folders that DVC ignores, by .dvcignore or by default
KNOWN = "md5.json"
MOST_KNOWN = 200_000  # files to remember; files beyond that are read again


def files_under(folder: Path, parts: Iterable[str] = ()) -> dict[str, Path]:
    """Return all files in a folder that DVC does not ignore, by POSIX relative path.

    Args:
        folder: The folder to search.
        parts: Files and folders in it to search; empty: all of it.
    """
    paths = {}
    for part in parts or ("",):
        start = folder / part
        for path in [start] if start.is_file() else start.rglob("*"):
            name = path.relative_to(folder)
            if not IGNORED & set(name.parts) and path.is_file():
                paths[name.as_posix()] = path
    return paths


def special_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield special files, such as named pipes, among paths and in folders below them."""
    for path in paths:
        below = path.rglob("*") if path.is_dir() else (path,)
        yield from (
            item for item in below if item.exists() and not (item.is_file() or item.is_dir())
        )


def folder_hash(md5s: Mapping[str, str]) -> str:
    """Return DVC's hash of a folder with these files.

    Args:
        md5s: MD5 of each file, by POSIX relative path.
    """
    return f"{hashlib.md5(_listed(md5s)).hexdigest()}.dir"


def _listed(md5s: Mapping[str, str]) -> bytes:
    """Return the list of a folder's files, encoded exactly as DVC writes it."""
    entries = [{"md5": md5s[name], "relpath": name} for name in sorted(md5s)]
    return json.dumps(entries, sort_keys=True).encode()


def listing(project: Project, md5: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a folder by POSIX relative path, from DVC's cache.

    Args:
        project: The project whose cache to read.
        md5: The folder's hash.

    Returns:
        None if the cache has no list of files that matches the hash.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content = cached(project, md5).read_bytes()
        if f"{hashlib.md5(content).hexdigest()}.dir" == md5:
            return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    return None


def is_cached(project: Project, md5: str) -> bool:
    """Return whether DVC's cache has a file, or a folder with all its files."""
    if not md5.endswith(".dir"):
        return cached(project, md5).is_file()
    hashes = listing(project, md5)
    return hashes is not None and all(cached(project, file).is_file() for file in hashes.values())


def cached(project: Project, md5: str) -> Path:
    """Return the path of an object in DVC's cache, whether it exists or not."""
    return cache_folder(project) / "files" / "md5" / md5[:2] / md5[2:]


class Md5s:
    """A cache of MD5 hashes, so that an unchanged file is read only once.

    A file is identified by device, inode, size and modification time. So hard links to one file, as
    DVC's cache makes them, are read once.

    Args:
        path: File that stores the known hashes; None: read every file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        if path is not None and path.is_file():
            with suppress(MalformedFileError):
                known = files.read_json(path)
                self._known = known if isinstance(known, dict) else {}

    @classmethod
    def of(cls, project: Project) -> Md5s:
        """Return the hash cache of a project; DVC's temporary workspaces share the project's."""
        root = Path(os.environ.get("DVC_ROOT") or project.root)
        scratch = root / project.scratch.name
        return cls(scratch / KNOWN if scratch.is_dir() else project.scratch / KNOWN)

    def of_files(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """Return the MD5 of files under the given names, and store them for later calls."""
        keys = {name: _key(path) for name, path in paths.items()}
        new = {keys[name]: path for name, path in paths.items() if keys[name] not in self._known}
        if new:
            with ThreadPoolExecutor() as pool:
                hashes = dict(zip(new, pool.map(_md5, new.values()), strict=True))
            # A file that changed while it was read has another key now, and is not remembered.
            self._known |= {key: md5 for key, md5 in hashes.items() if key == _key(new[key])}
            known = {**self._known, **hashes}
            if self._path is not None:
                with suppress(OSError):  # without the stored hashes, the next call is only slower
                    latest = list(self._known.items())[-MOST_KNOWN:]
                    files.write_json(self._path, dict(latest))
            return {name: known[keys[name]] for name in paths}
        return {name: self._known[keys[name]] for name in paths}


def _key(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
