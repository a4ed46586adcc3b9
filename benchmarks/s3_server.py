"""S3 for benchmarks: moto in a process of its own on this machine, which counts what it is asked."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from ctypes import c_longlong
from typing import Any, Self
from urllib.parse import parse_qs

BUCKET = "benchmark"
KINDS = ("PUT", "COPY", "GET", "HEAD", "LIST", "POST", "DELETE", "bytes up", "bytes down")
"""Requests by what S3 charges for them; POST begins and ends a file that is put in parts."""


class Server:
    """S3 of moto in another process; the environment says where, as it does for clients of S3.

    Args:
        latency: Seconds that each answer comes later than it could.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self._latency = latency

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._counted = {kind: context.Value(c_longlong, 0) for kind in KINDS}
        mine, its = context.Pipe()
        arguments = (its, self._counted, self._latency)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        os.environ |= {
            "AWS_ENDPOINT_URL": mine.recv(),
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        import boto3

        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()

    def count(self, act: Callable[[], Any]) -> dict[str, int]:
        """Return what the server was asked while this ran, by kind, and the bytes of contents."""
        before = {kind: each.value for kind, each in self._counted.items()}
        act()
        return {kind: each.value - before[kind] for kind, each in self._counted.items()}


def serve(pipe: Any, counted: dict[str, Any], latency: float) -> None:
    """Serve S3 on a free port, and send its address back."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)

    def add(kind: str, value: int) -> None:
        with counted[kind].get_lock():
            counted[kind].value += value

    def counting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        time.sleep(latency)
        kind = kind_of(environ)
        add(kind, 1)
        if kind == "PUT":
            decoded = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH")
            add("bytes up", int(decoded or environ.get("CONTENT_LENGTH") or 0))

        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            if kind == "GET":
                told = {name.lower(): value for name, value in headers}
                add("bytes down", int(told.get("content-length", 0)))
            return start_response(status, headers, *rest)

        return moto(environ, begin)

    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are used again, as S3 does
    server = make_server("127.0.0.1", 0, counting, threaded=True)
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def kind_of(environ: dict[str, Any]) -> str:
    """Return what S3 would charge a request as."""
    method = environ["REQUEST_METHOD"]
    if method == "GET" and {"list-type", "prefix"} & parse_qs(environ["QUERY_STRING"]).keys():
        return "LIST"
    return "COPY" if method == "PUT" and "HTTP_X_AMZ_COPY_SOURCE" in environ else method
