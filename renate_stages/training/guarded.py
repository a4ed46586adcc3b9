"""Report errors at the end of a command: a message for mistakes, a traceback for defects."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

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


class Terminated(SystemExit):
    """SIGTERM ends the command."""


def end_on_sigterm() -> None:
    """Let SIGTERM end this process by an exception, so that it removes its temporary files."""

    def end(number: int, _: FrameType | None) -> None:
        raise Terminated(128 + number)

    signal.signal(signal.SIGTERM, end)


def guarded(work: Callable[[], object]) -> None:
    """Call a function and report its error, only once even if several processes share the work."""
    try:
        work()
    except Exception as error:
        if (code := _code_of_interruption(error)) is not None:
            sys.exit(code)
        found = error if isinstance(error, RenateStagesError) else _shortage(error)
        found = found or user_code.blamed(error)
        launch.let_others_speak(launch.DEFECT if found is None else launch.MISTAKE)
        if found is None:
            raise
        more = _keep_traceback(error) if isinstance(found, UserCodeError) else ""
        print(f"error: {found}{more}", file=sys.stderr)
        sys.exit(found.exit_code)


def _code_of_interruption(error: BaseException | None) -> int | None:
    """Return the exit code of the Ctrl-C or SIGTERM during whose handling an error occurred.

    Such an error is no defect. The standard library itself raises one, for example, if a signal
    arrives while it closes a file: it then closes that file again.
    """
    while error is not None:
        if isinstance(error, Terminated):
            return 128 + signal.SIGTERM
        if isinstance(error, KeyboardInterrupt):
            return 128 + signal.SIGINT
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    return None


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
