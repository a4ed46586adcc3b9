"""Where the services listen, and the keys of who comes in."""

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
# Below those that the kernel gives away, so that one is still free after it was closed.
PORTS = range(20000, 32000)


class Entrance:
    """A port of this machine at which an application answers, when it is open.

    Args:
        application: What answers.
        who: Name in the keys of those that come in here.
    """

    def __init__(self, application: Application, who: str) -> None:
        self.application = application
        self.keys = (f"{who}-key", f"secret of {who}")
        self._session = _session_without_files()
        self._making = threading.Lock()  # sessions of boto3 are for one thread, clients for many
        self.port: int | None = None
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Answer, at the same port each time."""
        ports = [self.port] if self.port else random.SystemRandom().sample(PORTS, 100)
        for port in ports:
            try:
                self._server = make_server(
                    "127.0.0.1", port, self.application, threaded=True, request_handler=_Silent
                )
            except (OSError, SystemExit):  # taken; werkzeug exits
                continue
            self.port = port
            break
        assert self._server, f"no port is free of {ports}"
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
        """Ask moto itself."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path)
        assert connection.getresponse().status == 200
        connection.close()

    @property
    def variables(self) -> dict[str, str]:
        """What lets any client of AWS come in here."""
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
        """Make a client of boto3 that comes in here."""
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
        """Say nothing: `Cloud.calls` and `Cloud.defects` keep what matters."""


def _session_without_files() -> boto3.Session:
    """Make a session that a developer's own profile and configuration do not reach."""
    files = ("profile", "config_file", "credentials_file")
    nothing = dict.fromkeys(files, (None, None, None, None))
    return boto3.Session(botocore_session=botocore.session.Session(session_vars=nothing))
