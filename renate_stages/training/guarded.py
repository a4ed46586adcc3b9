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

TRACEBACK = "traceback.txt"  # of the last error in a user's code, in .renate/


def guarded(work: Callable[[], object]) -> None:
    """Call a function; report its error once, also if several processes share the work."""
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
    """Write a traceback where the user finds it, or print it; return a sentence that says where."""
    if os.environ.get(user_code.SHOWN):
        traceback.print_exception(error)
        return ""
    with suppress(RenateStagesError, OSError):
        path = Project.find().scratch / TRACEBACK
        files.write_text(path, "".join(traceback.format_exception(error)))
        return f"\nThe whole traceback is in {path.parent.name}/{path.name}."
    return ""


def _shortage(error: Exception) -> RenateStagesError | None:
    """Return what to say of a machine that has run out of disk or memory; None: it has not."""
    found = shortage.cause(error)
    if found is None:
        return None
    if isinstance(found, MemoryError):
        return OutOfMemoryError(found)
    interrupted = None
    with suppress(RenateStagesError):
        interrupted = Project.find().interrupted
    return FullDiskError(found, interrupted)
