"""Recognize errors of libraries that are caused by a full disk or a lack of memory."""

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
PROBE = 2**20  # bytes of the test write that shows whether a disk is full

# Messages of torch's and NumPy's allocators, and of sizes that no machine can allocate.
_MEMORY = re.compile(
    r"can't allocate memory|not enough memory: you tried|out of memory"
    r"|Storage size calculation overflowed|array is too big|Maximum allowed dimension exceeded"
)
_OS_ERROR = re.compile(r"\(os error (\d{1,4})\)")  # in errors of Rust libraries: safetensors, ...


def cause(error: BaseException) -> OSError | MemoryError | None:
    """Return the shortage of disk or memory that caused an error, or None if there was none."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if (shortage := _shortage(link)) is not None:
            return shortage
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def _shortage(error: BaseException) -> OSError | MemoryError | None:
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, OSError):
        return _of_number(error.errno, error)
    if isinstance(error, RenateStagesError):  # its message already explains the cause
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
    """Raise the shortage of disk or memory that caused an error; return if there was none.

    Raises:
        OSError: The disk is full, or fails.
        MemoryError: There is not enough memory.
    """
    shortage = cause(error)
    if shortage is not None:
        raise shortage from (error if error is not shortage else error.__cause__)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Convert an error in a block to an `OSError` if the disk is full.

    Errors of torch and NumPy do not name the reason, so a test write shows whether the disk is full.

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
    """Return the error of a test write in a folder, or None if the disk is not full."""
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
