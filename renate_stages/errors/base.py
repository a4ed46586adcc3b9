"""The base class of all errors."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from renate_stages.errors.redaction import shown


class RenateStagesError(Exception):
    """Base class of all errors that a user can fix; shown without a traceback."""

    exit_code = 2  # exit code of the command that raises it

    def __init__(self, *args: Any) -> None:
        # Messages quote URLs, logs and responses of services, which may contain secrets or control
        # sequences of a terminal. Every message passes through here.
        super().__init__(*(shown(part) if isinstance(part, str) else part for part in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # Python pickles an exception as a call of its class with the message, but most of our
        # classes take other arguments and build the message themselves.
        return _unpickle, (type(self), self.args, dict(self.__dict__))


class MissingFileError(RenateStagesError):
    """A required file or folder does not exist.

    Args:
        path: Path or URL of the file.
        what: A clause about the file's purpose, or about what went wrong.
        cure: What the user should do.
    """

    def __init__(self, path: Path | str, what: str, cure: str) -> None:
        super().__init__(f"{path} is missing: {what}.\nTo fix this: {cure}.")


class MalformedFileError(RenateStagesError):
    """A file does not have the expected format."""

    def __init__(self, path: Path | str, kind: str, reason: str, cure: str | None = None) -> None:
        fix = f"\nTo fix this: {cure}." if cure else ""
        super().__init__(f"{path} cannot be read as {kind}: {reason}{fix}")


class ConflictedFileError(RenateStagesError):
    """A file contains the conflict markers of a Git merge."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path} has merge conflicts: it contains two versions of some lines.\n"
            "To fix this: run `renate-stages status` to see the two versions, then "
            "`renate-stages resolve --ours` or `--theirs` to keep one of them."
        )


class FolderTakenError(RenateStagesError):
    """Another process created the target folder while a new folder was being written."""

    def __init__(self, path: Path, kept: Path) -> None:
        super().__init__(
            f"Another process created {path} while this command was running, so it was not "
            f"replaced. The new folder is complete: {kept}.\n"
            "To fix this: use the new folder under that name, or rename it."
        )


class ForeignFolderError(RenateStagesError):
    """A job would remove a folder that contains files which it did not write."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} contains files that this job did not write, and the job would remove the "
            "folder.\n"
            "To fix this: use another working_directory, or move that folder away."
        )


def _unpickle(
    kind: type[RenateStagesError], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> RenateStagesError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `", did you mean 'x'?"` for the closest known name, or an empty string."""
    by_lower_case = {candidate.lower(): candidate for candidate in sorted(known)}
    close = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f", did you mean '{by_lower_case[close[0]]}'?" if close else ""


def sentence(text: str) -> str:
    """Return a text with a full stop, unless it ends with a question, such as of `did_you_mean`."""
    return text if text.endswith("?") else f"{text}."
