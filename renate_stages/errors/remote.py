"""Places elsewhere that cannot be reached, refuse, or give other bytes than they were given."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class InvalidUrlError(RenateStagesError):
    """A URL that names no place that can be reached from here."""

    def __init__(self, url: str, problem: str, cure: str) -> None:
        super().__init__(f"{url}: {problem}.\nTo mend it: {cure}.")


class RemoteRefusedError(RenateStagesError):
    """A service answered, and will not do this however often it is asked."""

    def __init__(self, doing: str, url: str, reason: str, cure: str) -> None:
        super().__init__(f"{doing} {url} was refused: {reason}\nTo mend it: {cure}.")


class RemoteUnreachableError(RenateStagesError):
    """A service did not answer, broke off or asked to wait, each time it was asked."""

    def __init__(self, doing: str, url: str, attempts: int, reason: str) -> None:
        super().__init__(
            f"{doing} {url} failed {attempts} times, the last time with: {reason}\n"
            "To mend it: look whether the network and the service answer (for a service that is "
            "compatible with S3: whether AWS_ENDPOINT_URL names it), then do this again: what has "
            "arrived already does not travel again."
        )


class OversizedFileError(RenateStagesError):
    """A file elsewhere that is too large to be what its name says."""

    def __init__(self, url: str, size: int, limit: int) -> None:
        super().__init__(
            f"{url} has at least {size} bytes; expected at most {limit}. It was not read.\n"
            "To fix this: find out who wrote it, and remove it."
        )


class DamagedTransferError(RenateStagesError):
    """What arrived is not what was sent.

    Args:
        url: Of the file.
        problem: What is wrong with it.
        passes: Whether another attempt may help; not where the service itself has these bytes.
    """

    def __init__(self, url: str, problem: str, *, passes: bool = True) -> None:
        self.passes = passes
        super().__init__(
            f"{url} is not what it must be: {problem}.\nTo fix this: run this again. If the error "
            "stays, the file there is damaged: replace it with a whole copy."
        )
