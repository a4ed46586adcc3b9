"""Recognise a full disk or memory behind the errors of any library."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renate_stages.errors import RenateStagesError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DISK = FULL | {errno.EIO}
PROBE = 2**20  # bytes that a disk which is not full takes

# torch, NumPy: their own allocators, and sizes beyond every machine's.
_MEMORY = re.compile(
    r"can't allocate memory|not enough memory: you tried|out of memory"
    r"|Storage size calculation overflowed|array is too big|Maximum allowed dimension exceeded"
)
_OS_ERROR = re.compile(r"\(os error (\d{1,4})\)")  # of libraries in Rust, such as safetensors


def cause(error: BaseException) -> OSError | MemoryError | None:
    """Return the shortage of disk or memory that caused an error; None if there was none."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if (found := _shortage(each)) is not None:
            return found
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return None


def _shortage(error: BaseException) -> OSError | MemoryError | None:
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, OSError):
        return _of_number(error.errno, error)
    if isinstance(error, RenateStagesError):  # what these say is for the user
        return None
    text = str(error)[:1000]
    if number := _OS_ERROR.search(text):
        return _of_number(int(number[1]), OSError(int(number[1]), text))
    return MemoryError(text.partition("\n")[0]) if _MEMORY.search(text) else None


def _of_number(number: int | None, error: OSError) -> OSError | MemoryError | None:
    if number == errno.ENOMEM:
        return MemoryError(str(error))
    return error if number in DISK else None


def reraise(error: BaseException) -> None:
    """Raise the shortage that caused an error, if there was one, so that it is reported as such.

    Raises:
        OSError: The disk is full, or fails.
        MemoryError: There is not enough memory.
    """
    found = cause(error)
    if found is not None:
        raise found from (error if error is not found else error.__cause__)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Convert a library's error on a full disk to the `OSError` that Python has for it.

    Errors of torch and NumPy do not name the reason, so a test write shows if the disk is full.

    Args:
        folder: The folder that the block writes to.

    Raises:
        OSError: The disk is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RenateStagesError) or cause(error) is not None:
            raise
        if (full := _refusal(folder)) is not None:
            raise full from error
        raise


def _refusal(folder: Path) -> OSError | None:
    """Return the error of a test write in a folder; None if the disk is not full."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    probe = folder / f".probe.{os.getpid()}.new"
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error if error.errno in DISK else None
    finally:
        probe.unlink(missing_ok=True)
    return None
