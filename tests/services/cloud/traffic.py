"""Record a client's calls, and the transferred bytes of S3 objects."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cloud.protocol import Application, Environ, Request, StartResponse

UPLOADS = ("PutObject", "UploadPart")
DOWNLOADS = ("GetObject",)


@dataclass(frozen=True)
class Call:
    """A request that was answered.

    Args:
        name: Name of the call, such as `s3:PutObject`.
        status: HTTP status.
        uri: `s3://bucket/key`; empty for other services than S3.
        size: Transferred bytes of the object's content.
    """

    name: str
    status: int
    uri: str = ""
    size: int = 0


class Traffic:
    """Records the calls of an application."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.calls: list[Call] = []
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = Request.read(environ)
        answer: dict[str, str] = {}

        def note(status: str, headers: list[tuple[str, str]], *rest: object) -> object:
            answer.update({name.lower(): value for name, value in headers}, status=status[:3])
            return start_response(status, headers, *rest)

        content = self.application(environ, note)
        status = int(answer["status"])
        size = 0
        if request.service == "s3" and status < 300:
            if request.operation in UPLOADS:
                # a trailing checksum makes the body longer than the object
                decoded = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH")
                size = int(decoded or environ.get("CONTENT_LENGTH") or 0)
            elif request.operation in DOWNLOADS:
                size = int(answer["content-length"])
        with self._lock:
            self.calls.append(Call(request.name, status, request.uri, size))
        return content

    def sizes(self, operations: tuple[str, ...], since: int, under: str) -> dict[str, int]:
        """Return the bytes per object of calls since a mark, for addresses below `under`."""
        names = {f"s3:{operation}" for operation in operations}
        found: Counter[str] = Counter()
        for call in self.calls[since:]:
            if call.name in names and call.status < 300 and call.uri.startswith(under):
                found[call.uri.removeprefix(under)] += call.size
        return dict(found)
