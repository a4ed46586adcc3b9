"""What a client asked and what travelled: its calls, and the bytes of S3's objects."""

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
        name: Such as `s3:PutObject`.
        status: Of HTTP.
        uri: Of S3: `s3://bucket/key`.
        size: Bytes of the object's content that travelled.
    """

    name: str
    status: int
    uri: str = ""
    size: int = 0


class Traffic:
    """Notes the calls on the way to an application."""

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
                # with a checksum behind it, the body is longer than the object
                decoded = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH")
                size = int(decoded or environ.get("CONTENT_LENGTH") or 0)
            elif request.operation in DOWNLOADS:
                size = int(answer["content-length"])
        with self._lock:
            self.calls.append(Call(request.name, status, request.uri, size))
        return content

    def sizes(self, operations: tuple[str, ...], since: int, under: str) -> dict[str, int]:
        """Bytes per object, of the calls since a mark, whose addresses begin with `under`."""
        names = {f"s3:{operation}" for operation in operations}
        found: Counter[str] = Counter()
        for call in self.calls[since:]:
            if call.name in names and call.status < 300 and call.uri.startswith(under):
                found[call.uri.removeprefix(under)] += call.size
        return dict(found)
