"""What all errors have in common."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from renate_stages.errors.redaction import shown


class RenateStagesError(Exception):
    """Base of all errors that a user can mend; shown without a traceback."""

    exit_code = 2  # of the command that it ends

    def __init__(self, *args: Any) -> None:
        # Messages quote URLs, logs and answers of services, which may hold secrets or control a
        # terminal. This is the one place that every message passes.
        super().__init__(*(shown(each) if isinstance(each, str) else each for each in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled as a call with their message, which most of ours make themselves.
        return _as_it_was, (type(self), self.args, dict(self.__dict__))


class MissingFileError(RenateStagesError):
    """A file or folder that must be there is not."""

    def __init__(self, path: Path | str, what: str, cure: str) -> None:
        super().__init__(f"{path} is missing: {what}.\nTo mend it: {cure}.")


class MalformedFileError(RenateStagesError):
    """A file that cannot be read as what it should be."""

    def __init__(self, path: Path | str, kind: str, reason: str, cure: str | None = None) -> None:
        fix = f"\nTo fix this: {cure}." if cure else ""
        super().__init__(f"{path} is not readable as {kind}: {reason}{fix}")


class ConflictedFileError(RenateStagesError):
    """A file that Git left with the marks of a merge conflict."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path} has conflicts of a merge: it holds two versions of some lines.\n"
            "To fix this: `renate-stages status` says which versions these are, and "
            "`renate-stages resolve --ours` or `--theirs` takes one of them."
        )


class FolderTakenError(RenateStagesError):
    """A new folder whose place was taken while it was being written."""

    def __init__(self, path: Path, kept: Path) -> None:
        super().__init__(
            f"{path} was made by somebody else meanwhile, and was left as it is. The new folder is "
            f"complete, in {kept}.\nTo fix this: rename it, or use it where it is."
        )


class ForeignFolderError(RenateStagesError):
    """A folder that a command would use and remove, and that holds files of somebody else."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds files that are not ours, and this job would remove the folder.\n"
            "To fix this: give another working_directory, or move that folder away."
        )


def _as_it_was(
    kind: type[RenateStagesError], arguments: tuple[Any, ...], attributes: dict[str, Any]
) -> RenateStagesError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `", did you mean 'x'?"` for the closest known name, or an empty string."""
    by_lower_case = {each.lower(): each for each in sorted(known)}
    close = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f", did you mean '{by_lower_case[close[0]]}'?" if close else ""
