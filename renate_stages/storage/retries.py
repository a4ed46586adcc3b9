"""Retry requests that may succeed later, and convert other failures to clear errors."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from renate_stages.errors import (
    DamagedTransferError,
    RemoteRefusedError,
    RemoteUnreachableError,
    RenateStagesError,
)

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further attempt; jitter multiplies them by 0.5 to 1.5."""

_WAIT_CODES = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "OperationAborted",
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
}
_BROKEN = {  # class names in botocore, aiohttp and similar packages, which are not imported here
    "HTTPClientError",
    "ConnectionError",
    "IncompleteReadError",
    "ResponseParserError",
    "ClientConnectionError",
    "ClientPayloadError",
    "FlexibleChecksumError",
    "TimeoutError",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}

Result = TypeVar("Result")


def attempt(doing: str, url: str, call: Callable[[], Result]) -> Result:
    """Call a function until it succeeds, with growing pauses, if the failure may be temporary.

    Args:
        doing: Name of the operation, with which the error message begins: `uploading`.
        url: URL of the file.
        call: The function; must be safe to call again after a failure.

    Raises:
        FileNotFoundError: If `call` raises it.
        RemoteRefusedError: If trying again cannot help: no permission, no such bucket.
        RemoteUnreachableError: If every attempt failed.
        DamagedTransferError: If the content differed in every attempt, or is damaged at the service.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except DamagedTransferError as error:
            if pause is None or not error.passes:
                raise
        except RenateStagesError:
            raise
        except Exception as error:
            if not passes(error):
                raise _final(doing, url, error) from error
            if pause is None:
                attempts = len(PAUSES) + 1
                raise RemoteUnreachableError(doing, url, attempts, _described(error)) from error
        time.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt returns or raises")


def passes(error: Exception) -> bool:
    """Return whether a failure may be temporary."""
    for link in _chain(error):
        code, status = _answer(link)
        if code in _WAIT_CODES or (code.isdigit() and int(code) >= 500):
            return True
        if status == 429 or status >= 500:
            return True
        if code or isinstance(link, PermissionError | FileNotFoundError):
            return False
        if isinstance(link, TimeoutError | ConnectionError):
            return True
        if _BROKEN & {kind.__name__ for kind in type(link).__mro__}:
            return True
    return False


def _final(doing: str, url: str, error: Exception) -> Exception:
    """Return the error to raise for a failure that is not temporary."""
    codes = {_answer(link)[0] for link in _chain(error)}
    kinds = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    if "NoSuchBucket" in codes:
        cure = "create the bucket, or correct its name in the URL"
        return RemoteRefusedError(doing, url, "the bucket does not exist.", cure)
    if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) in _FULL:
        return error
    if _NO_CREDENTIALS & kinds:
        cure = (
            "provide AWS credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile "
            "(AWS_PROFILE), or a role of this machine"
        )
        return RemoteRefusedError(doing, url, _described(error), cure)
    if isinstance(error, PermissionError):
        cure = (
            "run `aws sts get-caller-identity` to see which identity you use, and grant it "
            "permission to list, read and write under this URL"
        )
        return RemoteRefusedError(doing, url, _described(error), cure)
    if any(codes) or "BotoCoreError" in kinds or isinstance(error, OSError | NotImplementedError):
        return RemoteRefusedError(doing, url, _described(error), "check that the URL is correct")
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: BaseException) -> tuple[str, int]:
    """Return error code and HTTP status of a service's response; `""` and 0 without a response."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return "", 0
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error) or 'no details'}"
