"""A local HTTP endpoint of the services, with the credentials of its clients."""

from __future__ import annotations

import random
import threading
from http.client import HTTPConnection
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from moto.server import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from cloud.protocol import Application

REGION = "us-east-1"
# Below the kernel's ephemeral ports, so that a closed port stays free until it is reopened.
PORTS = range(20000, 32000)


class Endpoint:
    """A local port at which an application answers while the endpoint is open.

    Args:
        application: WSGI application that answers.
        who: Name of the endpoint's clients, used in their keys.
    """

    def __init__(self, application: Application, who: str) -> None:
        self.application = application
        self.keys = (f"{who}-key", f"secret of {who}")
        self._session = _session_without_files()
        self._making = threading.Lock()  # boto3 sessions are not thread-safe, clients are
        self.port: int | None = None
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Start to answer, at the same port each time."""
        ports = [self.port] if self.port else random.SystemRandom().sample(PORTS, 100)
        for port in ports:
            try:
                self._server = make_server(
                    "127.0.0.1", port, self.application, threaded=True, request_handler=_Silent
                )
            except (OSError, SystemExit):  # the port is taken; werkzeug exits
                continue
            self.port = port
            break
        assert self._server, f"none of these ports is free: {ports}"
        serve = {"target": self._server.serve_forever, "kwargs": {"poll_interval": 0.02}}
        self._thread = threading.Thread(**serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def post(self, path: str) -> None:
        """Send a POST request to moto itself."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path)
        assert connection.getresponse().status == 200
        connection.close()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables with which any AWS client uses this endpoint."""
        key, secret = self.keys
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, **config: Any) -> Any:
        """Create a boto3 client that uses this endpoint."""
        key, secret = self.keys
        with self._making:
            return self._session.client(
                service,
                endpoint_url=self.url,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                region_name=REGION,
                config=Config(proxies={}, **config),
            )


class _Silent(MotoRequestHandler):
    def log(self, *_: object) -> None:
        """Log nothing: `Cloud.calls` and `Cloud.defects` record what matters."""


def _session_without_files() -> boto3.Session:
    """Create a session that ignores a developer's own profile and configuration."""
    files = ("profile", "config_file", "credentials_file")
    nothing = dict.fromkeys(files, (None, None, None, None))
    return boto3.Session(botocore_session=botocore.session.Session(session_vars=nothing))
