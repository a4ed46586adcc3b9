"""Errors in a user's code, reported with the function and the line."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from renate_stages.errors import RenateStagesError, UserCodeError, shortage

SHOWN = "RENATE_STAGES_TRACEBACKS"
"""Environment variable: if set, an error in a user's code is printed with its traceback."""

_LIBRARIES = tuple(
    f"{path}/"
    for path in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
    }
)


@contextmanager
def running(what: str) -> Iterator[None]:
    """Convert an exception in a block to an error that names the user's function.

    Args:
        what: The name of that function, or of the object that it returned.

    Raises:
        UserCodeError: Our code or a library failed on an object from the user's code.
        OSError, MemoryError: The machine has run out of disk or memory.
        Exception: An exception from the user's own lines, unchanged; the command line reports these
            lines.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 -- it is raised again
        fail(what, error)


def fail(what: str, error: Exception) -> NoReturn:
    """Raise the errors that `running` raises; for hot code that has its own `try`."""
    if isinstance(error, RenateStagesError) or place(error):
        raise error
    shortage.reraise(error)
    raise UserCodeError(what, f"{type(error).__name__}: {error}") from error


def blamed(error: Exception) -> UserCodeError | None:
    """Return an error that names the user's function, or None if no frame is in user code."""
    frame = _last_frame(error.__traceback__)
    if frame is None:
        return None
    name = (
        frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name
    )
    return UserCodeError(name, f"{type(error).__name__}: {error}", place(error))


def place(error: BaseException) -> str:
    """Return file and line of the last user code in an error's traceback, or an empty string."""
    trace, location = error.__traceback__, ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if _is_users(str(path)):
            location = f"{_shown(path)}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return location


def _last_frame(trace: TracebackType | None) -> FrameType | None:
    frame = None
    while trace is not None:
        if _is_users(trace.tb_frame.f_code.co_filename):
            frame = trace.tb_frame
        trace = trace.tb_next
    return frame


def _is_users(path: str) -> bool:
    return path.startswith("/") and not path.startswith(_LIBRARIES)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def outline(tree: Any) -> str:
    """Describe a tensor, or a tree of tensors, in a few words: `float32 (32, 10)`."""
    if isinstance(tree, Mapping):
        return f"{{{', '.join(f'{key}: {outline(each)}' for key, each in tree.items())}}}"[:200]
    if isinstance(tree, tuple | list):
        return f"({', '.join(map(outline, tree[:4]))}{', ...' if len(tree) > 4 else ''})"[:200]
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"{str(tree.dtype).removeprefix('torch.')} {tuple(tree.shape)}"
    return "None" if tree is None else f"a {type(tree).__name__}"
