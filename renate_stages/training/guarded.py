"""Report errors at the end of a command: a message for mistakes, a traceback for defects."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from renate_stages import files
from renate_stages.errors import (
    FullDiskError,
    OutOfMemoryError,
    RenateStagesError,
    UserCodeError,
    shortage,
    user_code,
)
from renate_stages.project import Project
from renate_stages.training import launch

TRACEBACK = "traceback.txt"  # in .renate/; the traceback of the last error in the user's code


def guarded(work: Callable[[], object]) -> None:
    """Call a function and report its error, only once even if several processes share the work."""
    try:
        work()
    except Exception as error:
        found = error if isinstance(error, RenateStagesError) else _shortage(error)
        found = found or user_code.blamed(error)
        launch.let_others_speak(launch.DEFECT if found is None else launch.MISTAKE)
        if found is None:
            raise
        more = _keep_traceback(error) if isinstance(found, UserCodeError) else ""
        print(f"error: {found}{more}", file=sys.stderr)
        sys.exit(found.exit_code)


def _keep_traceback(error: Exception) -> str:
    """Write or print a traceback; return a sentence that says where it was written, or ""."""
    if os.environ.get(user_code.SHOWN):
        traceback.print_exception(error)
        return ""
    with suppress(RenateStagesError, OSError):
        path = Project.find().scratch / TRACEBACK
        files.write_text(path, "".join(traceback.format_exception(error)))
        return f"\nThe whole traceback is in {path.parent.name}/{path.name}."
    return ""


def _shortage(error: Exception) -> RenateStagesError | None:
    """Return the error to report if the disk or the memory is full; None for any other cause."""
    found = shortage.cause(error)
    if found is None:
        return None
    if isinstance(found, MemoryError):
        return OutOfMemoryError(found)
    interrupted = None
    with suppress(RenateStagesError):
        interrupted = Project.find().interrupted
    return FullDiskError(found, interrupted)
