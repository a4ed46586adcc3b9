"""Errors of remote storage: unreachable, access denied, checksum mismatch."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class InvalidUrlError(RenateStagesError):
    """A URL cannot be used."""

    def __init__(self, url: str, problem: str, cure: str) -> None:
        super().__init__(f"{url}: {problem}.\nTo fix this: {cure}.")


class RemoteRefusedError(RenateStagesError):
    """A service refused a request; trying again does not help."""

    def __init__(self, doing: str, url: str, reason: str, cure: str) -> None:
        super().__init__(f"{doing} {url} was refused: {reason}\nTo fix this: {cure}.")


class RemoteUnreachableError(RenateStagesError):
    """A service did not respond, disconnected or asked to wait on every attempt."""

    def __init__(self, doing: str, url: str, attempts: int, reason: str) -> None:
        super().__init__(
            f"{doing} {url} failed {attempts} times, the last time with: {reason}\n"
            "To fix this: check that the network and the service work (for an S3-compatible "
            "service, also check AWS_ENDPOINT_URL), then run the command again; files that were "
            "already transferred are skipped."
        )


class OversizedFileError(RenateStagesError):
    """A remote file is too large for its kind."""

    def __init__(self, url: str, size: int, limit: int) -> None:
        super().__init__(
            f"{url} has at least {size} bytes, but at most {limit} are allowed; it was not read.\n"
            "To fix this: find out who wrote this file, and remove it."
        )


class DamagedTransferError(RenateStagesError):
    """A transferred file is damaged.

    Args:
        url: URL of the file.
        problem: A clause about the damage.
        passes: Whether another attempt may succeed; false if the service itself has these bytes.
    """

    def __init__(self, url: str, problem: str, *, passes: bool = True) -> None:
        self.passes = passes
        super().__init__(
            f"{url} is damaged: {problem}.\nTo fix this: run the command again. If the error stays, "
            "the file in the remote storage is damaged: replace it with an intact copy."
        )
