"""Write files and folders atomically: write to a temporary name first, then rename.

A killed process leaves either the old file or the new one, never an incomplete one. An existing file
is never opened for writing, because it may be a hard link to DVC's cache, and root can write to it
although it is read-only.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from renate_stages.errors import ConflictedFileError, FolderTakenError, MalformedFileError, shortage


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with permissions according to the umask."""
    content = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with _locked(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
            os.fsync(descriptor)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys and a final newline, atomically."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, cure: str | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        cure: What the user should do if the file is invalid, for the error.

    Raises:
        MalformedFileError: If it is missing, not UTF-8, not valid JSON, or nested too deeply.
        ConflictedFileError: If it has Git's conflict markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if has_conflict_marks(text):
            raise ConflictedFileError(path)
        return parse_json(text)
    except OSError as error:
        raise MalformedFileError(path, "JSON", str(error.strerror), cure) from error
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(path, "JSON", str(error), cure) from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text.

    Raises:
        ValueError: If it is not valid JSON, or contains a lone surrogate (half of a character).
        RecursionError: If it is nested too deeply.
    """
    text = text if isinstance(text, str) else text.decode()
    if has_half_characters(content := json.loads(text)):
        raise ValueError("it contains half of a character (a lone surrogate), such as \\ud800")
    return content


def has_half_characters(content: Any) -> bool:
    """Return whether strings in a value have lone surrogates, which cannot be encoded as UTF-8."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                return True
        elif isinstance(value, dict | list):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
    return False


def has_conflict_marks(text: str) -> bool:
    """Return whether a text has the conflict markers of a Git merge."""
    marks = iter(("<<<<<<< ", "=======", ">>>>>>> "))
    mark = next(marks)
    for line in text.splitlines() if mark in text else ():
        if line == mark or (line.startswith(mark) and mark != "======="):
            mark = next(marks, "")
            if not mark:
                return True
    return False


@contextmanager
def whole_directory(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a new temporary folder that is renamed to `path` when the block succeeds.

    On an error the new folder is removed and `path` is unchanged.

    Args:
        path: The folder to write.
        replace: Whether an existing folder may be replaced; true for a stage's own outputs.

    Raises:
        FolderTakenError: If `path` exists at the end and must not be replaced. The new folder is
            then kept under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    with _locked(temporary):
        try:
            with shortage.explained(temporary):
                yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if not replace:
            _move_to_free(temporary, path)
            return
        replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
        with _locked(path) if path.is_dir() else nullcontext():
            if path.exists():
                path.rename(replaced)
            temporary.rename(path)
            if replaced.exists():
                shutil.rmtree(replaced)


def _move_to_free(folder: Path, path: Path) -> None:
    """Rename a folder to `path`, which must not exist.

    Raises:
        FolderTakenError: If it exists; the folder is renamed to the next free name.
    """
    for number in itertools.count(1):
        target = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if target.exists() or target.is_symlink():
            continue
        try:
            folder.rename(target)  # fails if another process has just written this folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            continue
        if number > 1:
            raise FolderTakenError(path, target)
        return


@contextmanager
def _locked(path: Path, flags: int | None = None) -> Iterator[int]:
    """Lock a file or folder, so that no other process takes it for an abandoned one.

    The lock stays when the file or folder is renamed.

    Args:
        path: File or folder to lock; created if it does not exist.
        flags: Flags to open a file with; None: it is a folder.

    Yields:
        The file descriptor.
    """
    while True:
        if flags is None:
            path.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY if flags is None else flags, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # another process removed it before it was locked
    try:
        yield descriptor
    finally:
        os.close(descriptor)


_BESIDE = re.compile(r"\.(?P<name>.+)\.(?:[0-9a-f]{8}|\d+)\.(?P<kind>new|old)")
"""Temporary names of `write_text` and `whole_directory`."""


def clear_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders of processes that were killed.

    If a folder was renamed but its successor is missing, the old folder gets its name back.

    Args:
        folder: Folder to search, without its subfolders.
        name: Final name of the file or folder; None: any name.
    """
    for path in folder.glob(".*.*.*"):
        match = _BESIDE.fullmatch(path.name)
        if match is None or name not in (None, match["name"]) or not _is_abandoned(path):
            continue
        target = path.with_name(match["name"])
        if match["kind"] == "old" and not target.exists():
            path.rename(target)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_abandoned(path: Path) -> bool:
    """Return whether no process holds the lock of a temporary file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # it has just been renamed, or belongs to another user
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def umask() -> int:
    """Return the process's umask: the permissions that new files and folders do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`; copy it if the file system cannot link.

    Raises:
        FileExistsError: If the target exists: it may be a link, and must not be written to.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already; an output is written only once")
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
        folder: Folder to search.
        without: Relative paths to leave out.
        known: Known entries by `identity`; these files are not read again.
    """
    known = known or {}
    entries = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in without:
            entry = known.get(identity(path))
            if entry is None or entry["size"] != path.stat().st_size:
                entry = {"sha256": sha256(path), "size": path.stat().st_size}
            entries[name] = entry
    return entries


def identities(folder: Path, listed: Mapping[str, Entry]) -> dict[tuple[int, int], Entry]:
    """Return the entries of listed files by `identity`, for the existing files."""
    paths = {name: folder / name for name in listed}
    return {identity(path): listed[name] for name, path in paths.items() if path.is_file()}


def identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file: hard links to one file share them."""
    status = path.stat()
    return status.st_dev, status.st_ino
