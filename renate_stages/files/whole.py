"""Write files and folders whole: write under another name first, then rename.

A killed process leaves the old file or the new one, never half of one. A file that exists is never
opened for writing: it may share its bytes with DVC's cache through a hard link, which root writes
through although it is read-only.
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
    """Write a text file whole, with the umask's permissions."""
    content = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with _held(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
            os.fsync(descriptor)
            beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys and a final newline, whole."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, cure: str | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        cure: One action that puts a wrong file right, for the error.

    Raises:
        MalformedFileError: If it is missing, not UTF-8 or not JSON, or nested without end.
        ConflictedFileError: If Git left a merge conflict in it.
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
    """Return the content of JSON.

    Raises:
        ValueError: If it is no JSON, or has half of a character, which no text can hold.
        RecursionError: If it is nested without end.
    """
    text = text if isinstance(text, str) else text.decode()
    if has_half_characters(content := json.loads(text)):
        raise ValueError("it has half of a character, such as \\ud800")
    return content


def has_half_characters(content: Any) -> bool:
    """Return whether texts in values have lone surrogates, which no text in a file can hold."""
    waiting = [content]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            try:
                each.encode()
            except UnicodeEncodeError:
                return True
        elif isinstance(each, dict | list):
            waiting += [*each, *each.values()] if isinstance(each, dict) else each
    return False


def has_conflict_marks(text: str) -> bool:
    """Return whether Git left a merge conflict in a text."""
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
    """Yield a new folder beside `path` that takes its place when the block succeeds.

    On an error the new folder is removed and `path` is as it was.

    Args:
        path: The folder to write.
        replace: Whether a folder at `path` may be replaced, which holds for a stage's own outputs.

    Raises:
        FolderTakenError: If something is at `path` in the end and may not be replaced. The new
            folder then stays under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(path.parent, path.name)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    with _held(beside):
        try:
            with shortage.explained(beside):
                yield beside
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        if not replace:
            _move_to_free(beside, path)
            return
        replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
        with _held(path) if path.is_dir() else nullcontext():
            if path.exists():
                path.rename(replaced)
            beside.rename(path)
            if replaced.exists():
                shutil.rmtree(replaced)


def _move_to_free(folder: Path, path: Path) -> None:
    """Rename a folder to `path`, where nothing may be.

    Raises:
        FolderTakenError: If something is there; the folder gets the next free name.
    """
    for number in itertools.count(1):
        target = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if target.exists() or target.is_symlink():
            continue
        try:
            folder.rename(target)  # fails if somebody has just filled a folder of this name
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            continue
        if number > 1:
            raise FolderTakenError(path, target)
        return


@contextmanager
def _held(path: Path, flags: int | None = None) -> Iterator[int]:
    """Lock a file or folder, whatever its name becomes, so that nobody takes it for an abandoned one.

    Args:
        path: What to lock; made if it is not there.
        flags: How to open a file; None: it is a folder.

    Yields:
        Its descriptor.
    """
    while True:
        if flags is None:
            path.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY if flags is None else flags, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # cleared away by another process before it was locked
    try:
        yield descriptor
    finally:
        os.close(descriptor)


_BESIDE = re.compile(r"\.(?P<name>.+)\.(?:[0-9a-f]{8}|\d+)\.(?P<kind>new|old)")
"""Names that `write_text` and `whole_directory` give to what they have not finished."""


def clear_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove unfinished files and folders of processes that were killed.

    An old folder whose successor never took its place is put back.

    Args:
        folder: Where to look, not below it.
        name: Of the file or folder that they were to become; None: of any.
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
    """Return whether no process holds the lock of an unfinished file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # it has just been finished, or is of another user
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


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
