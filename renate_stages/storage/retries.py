"""Retry requests that may succeed later, and turn the others into one clear error."""

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
"""Seconds before the second and each later attempt, before jitter of a half up or down."""

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
_BROKEN = {  # by name: of botocore, aiohttp and their like, which are not imported for this
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
    """Call until it succeeds, with growing pauses while the failure can pass.

    Args:
        doing: What it does, as the error begins: `sending`.
        url: To or from where.
        call: Does it; may be called again after it failed.

    Raises:
        FileNotFoundError: As `call` does.
        RemoteRefusedError: If asking again cannot help: no permission, no bucket.
        RemoteUnreachableError: If it failed each time.
        DamagedTransferError: If other bytes arrived each time, or the service has them itself.
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
                raise RemoteUnreachableError(doing, url, attempts, _said(error)) from error
        time.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt returns or raises")


def passes(error: Exception) -> bool:
    """Return whether a failure may be gone a moment later."""
    for each in _chain(error):
        code, status = _answer(each)
        if code in _WAIT_CODES or (code.isdigit() and int(code) >= 500):
            return True
        if status == 429 or status >= 500:
            return True
        if code or isinstance(each, PermissionError | FileNotFoundError):
            return False
        if isinstance(each, TimeoutError | ConnectionError):
            return True
        if _BROKEN & {kind.__name__ for kind in type(each).__mro__}:
            return True
    return False


def _final(doing: str, url: str, error: Exception) -> Exception:
    """Return what a user should see of a failure that does not pass."""
    codes = {_answer(each)[0] for each in _chain(error)}
    kinds = {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}
    if "NoSuchBucket" in codes:
        cure = "create the bucket, or correct its name in the URL"
        return RemoteRefusedError(doing, url, "there is no such bucket.", cure)
    if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) in _FULL:
        return error
    if _NO_CREDENTIALS & kinds:
        cure = (
            "give credentials where AWS's tools find them: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE), or the role of this machine"
        )
        return RemoteRefusedError(doing, url, _said(error), cure)
    if isinstance(error, PermissionError):
        cure = (
            "run `aws sts get-caller-identity` to see which identity you use, and give it "
            "permission to list, read and write under this URL"
        )
        return RemoteRefusedError(doing, url, _said(error), cure)
    if any(codes) or "BotoCoreError" in kinds or isinstance(error, OSError | NotImplementedError):
        return RemoteRefusedError(doing, url, _said(error), "check that the URL is right")
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: BaseException) -> tuple[str, int]:
    """Return the code and the HTTP status of a service's answer; `""` and 0 where there is none."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return "", 0
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error) or 'no details'}"
