"""Whole and deterministic files and folders: written beside their place and renamed in.

A killed process leaves the old file or the new one, never half of one. A file that exists is never
opened for writing: it may share its bytes with DVC's cache through a hard link, which root writes
through although it is read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renate_stages.errors import MalformedFileError


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, with the umask's permissions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys and a final newline, whole."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MalformedFileError: If it is missing, not UTF-8 or not JSON, or nested without end.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedFileError(path, "JSON", str(error)) from error


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` that takes its place when the block succeeds.

    What stood at `path` is gone afterwards only if it is there again: the caller replaces outputs
    of its own. On an error the new folder is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent))
    beside.chmod(0o777 & ~umask())
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(replaced)
    beside.rename(path)
    if replaced.exists():
        shutil.rmtree(replaced)


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed process left beside `path`; stages hold a lock, so nobody writes it."""
    for suffix in ("new", "old"):
        for left in path.parent.glob(f".{path.name}.*.{suffix}"):
            if not left.is_dir():  # of write_text, for a file whose name begins like the folder's
                left.unlink()
            elif suffix == "old" and not path.exists():
                left.rename(path)
            else:
                shutil.rmtree(left)


def umask() -> int:
    """Return the permissions that new files and folders of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def link_or_copy(source: Path, target: Path) -> None:
    """Give `target` the bytes of `source` without copying where the file system can.

    Raises:
        FileExistsError: If there is a target: writing it could write through a link of its own.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists: an output is written once")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Return the SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


Entry = dict[str, Any]
"""Size in bytes and SHA-256 of a file."""


def entry_of(content: bytes) -> Entry:
    """Return the entry of a file with this content."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def inventory(
    folder: Path,
    *,
    without: tuple[str, ...] = (),
    known: Mapping[tuple[int, int], Entry] | None = None,
) -> dict[str, Entry]:
    """Return size in bytes and SHA-256 of every file under a folder, by POSIX relative path.

    Args:
        folder: Where to look.
        without: Relative paths to leave out.
        known: Entries of files by `identity`, which are not read again.
    """
    known = known or {}
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in without:
            entry = known.get(identity(path))
            if entry is None or entry["size"] != path.stat().st_size:
                entry = {"sha256": sha256(path), "size": path.stat().st_size}
            found[name] = entry
    return found


def identities(folder: Path, listed: Mapping[str, Entry]) -> dict[tuple[int, int], Entry]:
    """Return the entries of listed files by what tells a file from any other on this machine."""
    paths = {name: folder / name for name in listed}
    return {identity(path): listed[name] for name, path in paths.items() if path.is_file()}


def identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file: hard links to one file share them."""
    status = path.stat()
    return status.st_dev, status.st_ino
