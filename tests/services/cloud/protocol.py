"""Parse HTTP requests to AWS, and answer them in the format of their protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# S3: method, subject, marker in query string or headers, operation. The first match counts.
S3_OPERATIONS = (
    ("GET", "service", None, "ListBuckets"),
    ("GET", "bucket", "list-type", "ListObjectsV2"),
    ("GET", "bucket", "location", "GetBucketLocation"),
    ("GET", "bucket", "uploads", "ListMultipartUploads"),
    ("GET", "bucket", None, "ListObjects"),
    ("HEAD", "bucket", None, "HeadBucket"),
    ("PUT", "bucket", None, "CreateBucket"),
    ("POST", "bucket", "delete", "DeleteObjects"),
    ("DELETE", "bucket", None, "DeleteBucket"),
    ("GET", "object", "uploadId", "ListParts"),
    ("GET", "object", "tagging", "GetObjectTagging"),
    ("GET", "object", "attributes", "GetObjectAttributes"),
    ("GET", "object", None, "GetObject"),
    ("HEAD", "object", None, "HeadObject"),
    ("PUT", "object", "partNumber", "UploadPart"),
    ("PUT", "object", "tagging", "PutObjectTagging"),
    ("PUT", "object", "HTTP_X_AMZ_COPY_SOURCE", "CopyObject"),
    ("PUT", "object", None, "PutObject"),
    ("POST", "object", "uploads", "CreateMultipartUpload"),
    ("POST", "object", "uploadId", "CompleteMultipartUpload"),
    ("DELETE", "object", "uploadId", "AbortMultipartUpload"),
    ("DELETE", "object", None, "DeleteObject"),
)


class ServiceError(Exception):
    """An error with which a service refuses a request.

    Args:
        code: Code of the error, such as `ValidationException`.
        message: Message for the user.
        status: HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class Request:
    """A request to a service.

    Args:
        service: Service that the request is signed for, such as `sagemaker`.
        operation: Operation, such as `CreateTrainingJob`.
        body: Whole body; empty for S3, whose bodies are large.
        uri: `s3://bucket/key`; empty for other services than S3.
        environ: WSGI environment.
    """

    service: str
    operation: str
    body: bytes
    uri: str
    environ: Environ

    @classmethod
    def read(cls, environ: Environ) -> Request:
        """Read a request from its WSGI environment, and restore the body for later readers."""
        service = _signed_for(environ)
        if service == "s3":
            bucket, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
            return cls(
                service, _s3_operation(environ, bucket, key), b"", f"s3://{bucket}/{key}", environ
            )
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        target = environ.get("HTTP_X_AMZ_TARGET")
        if target:
            operation = target.rpartition(".")[2]
        else:  # the query protocol: IAM and STS
            operation = parse_qs(body.decode(errors="replace")).get("Action", ["?"])[0]
        return cls(service, operation, body, "", environ)

    @property
    def name(self) -> str:
        """Name as in IAM policies, such as `sagemaker:CreateTrainingJob`."""
        return f"{self.service}:{self.operation}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters in the JSON protocol."""
        return json.loads(self.body or b"{}")

    def replace(self, parameters: dict[str, Any]) -> None:
        """Replace the parameters for later readers of the request."""
        body = json.dumps(parameters).encode()
        self.environ.update({"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))})

    @property
    def form(self) -> dict[str, list[str]]:
        """Parameters in the query protocol."""
        return parse_qs(self.body.decode())

    def drain(self) -> None:
        """Read the rest of the body: a client that is still sending would not read the answer."""
        left = int(self.environ.get("CONTENT_LENGTH") or 0)
        while left and (read := self.environ["wsgi.input"].read(min(left, 1 << 20))):
            left -= len(read)

    def answer(self, start_response: StartResponse, content: dict[str, Any]) -> list[bytes]:
        """Answer in the JSON protocol."""
        return _send(start_response, 200, "application/x-amz-json-1.1", json.dumps(content))

    def answer_xml(self, start_response: StartResponse, content: str) -> list[bytes]:
        """Answer in the query protocol."""
        text = f"<{self.operation}Response>{content}</{self.operation}Response>"
        return _send(start_response, 200, "text/xml", text)

    def refuse(self, start_response: StartResponse, error: ServiceError) -> list[bytes]:
        """Answer with an error in the format of the service."""
        self.drain()
        if self.service in ("s3", "iam", "sts"):
            text = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
            if self.service != "s3":
                text = f"<ErrorResponse>{text}</ErrorResponse>"
            text = "" if self.environ["REQUEST_METHOD"] == "HEAD" else text
            return _send(start_response, error.status, "text/xml", text)
        content = {"__type": error.code, "message": error.message}
        return _send(
            start_response, error.status, "application/x-amz-json-1.1", json.dumps(content)
        )


def _signed_for(environ: Environ) -> str:
    """Return the service of a signature: Credential=KEY/DAY/REGION/SERVICE/aws4_request."""
    _, _, scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")
    parts = scope.split(",")[0].split("/")
    return parts[3] if len(parts) == 5 else "s3"  # as moto treats unsigned requests


def _s3_operation(environ: Environ, bucket: str, key: str) -> str:
    about = "object" if key else "bucket" if bucket else "service"
    has = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).keys() | environ.keys()
    for method, subject, marker, name in S3_OPERATIONS:
        fits = (method, subject) == (environ["REQUEST_METHOD"], about)
        if fits and (marker is None or marker in has):
            return name
    return "?"


def _send(start_response: StartResponse, status: int, kind: str, text: str) -> list[bytes]:
    body = text.encode()
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{status} {'OK' if status == 200 else 'Error'}", headers)
    return [body]
