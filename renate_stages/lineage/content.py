"""DVC's content hashes of files and folders."""

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

IGNORED = {"__pycache__", ".git", ".dvc"}  # folders that DVC passes over, by .dvcignore or itself
KNOWN = "md5.json"
MOST_KNOWN = 200_000  # files; more are forgotten, and read again


def files_under(folder: Path, parts: Iterable[str] = ()) -> dict[str, Path]:
    """Return all files that DVC sees under a folder, by POSIX relative path.

    Args:
        folder: Where to look.
        parts: Files and folders in it to look at; none: all of it.
    """
    found = {}
    for part in parts or ("",):
        place = folder / part
        for path in [place] if place.is_file() else place.rglob("*"):
            name = path.relative_to(folder)
            if not IGNORED & set(name.parts) and path.is_file():
                found[name.as_posix()] = path
    return found


def special_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield what is neither a file nor a folder, such as a named pipe, at paths and below them."""
    for path in paths:
        below = path.rglob("*") if path.is_dir() else (path,)
        yield from (
            each for each in below if each.exists() and not (each.is_file() or each.is_dir())
        )


def folder_hash(md5s: Mapping[str, str]) -> str:
    """Return the hash by which DVC names a folder with these files.

    Args:
        md5s: MD5 of each file, by POSIX relative path.
    """
    return f"{hashlib.md5(_listed(md5s)).hexdigest()}.dir"


def _listed(md5s: Mapping[str, str]) -> bytes:
    """Return the list of a folder's files, in the bytes that DVC writes."""
    entries = [{"md5": md5s[name], "relpath": name} for name in sorted(md5s)]
    return json.dumps(entries, sort_keys=True).encode()


def listing(project: Project, md5: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a folder that DVC's cache lists, by POSIX relative path.

    Args:
        project: Whose cache is asked.
        md5: The folder's hash.

    Returns:
        None where the cache has no list that fits the hash.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content = cached(project, md5).read_bytes()
        if f"{hashlib.md5(content).hexdigest()}.dir" == md5:
            return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    return None


def is_cached(project: Project, md5: str) -> bool:
    """Return whether DVC's cache has all of a file or folder."""
    if not md5.endswith(".dir"):
        return cached(project, md5).is_file()
    named = listing(project, md5)
    return named is not None and all(cached(project, each).is_file() for each in named.values())


def cached(project: Project, md5: str) -> Path:
    """Return where DVC's cache has, or would have, the object of a hash."""
    return cache_folder(project) / "files" / "md5" / md5[:2] / md5[2:]


class Md5s:
    """Knows the MD5 of files by device, inode, size and time of change, and so reads each once.

    Hard links to one file, as DVC's cache makes them, are one file.

    Args:
        path: Where what is known is kept; None: every file is read.
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
        """Return what is known of a project's files, in a temporary workspace of DVC's too."""
        root = Path(os.environ.get("DVC_ROOT") or project.root)
        scratch = root / project.scratch.name
        return cls(scratch / KNOWN if scratch.is_dir() else project.scratch / KNOWN)

    def of_files(self, wanted: Mapping[str, Path]) -> dict[str, str]:
        """Return the MD5 of files, by the names given, and keep them for the next time."""
        seen = {name: _seen(path) for name, path in wanted.items()}
        new = {seen[name]: path for name, path in wanted.items() if seen[name] not in self._known}
        if new:
            with ThreadPoolExecutor() as pool:
                found = dict(zip(new, pool.map(_md5, new.values()), strict=True))
            self._known |= {key: md5 for key, md5 in found.items() if key == _seen(new[key])}
            known = {**self._known, **found}
            if self._path is not None:
                with suppress(OSError):  # only a saving of time
                    latest = list(self._known.items())[-MOST_KNOWN:]
                    files.write_json(self._path, dict(latest))
            return {name: known[seen[name]] for name in wanted}
        return {name: self._known[seen[name]] for name in wanted}


def _seen(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
