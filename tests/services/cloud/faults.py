"""Inject faults between a client and the services."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from cloud.protocol import Application, Environ, Request, ServiceError, StartResponse

Kind = Literal["throttle", "refuse", "error", "drop", "lose", "delay", "act"]


@dataclass
class Fault:
    """A fault that is injected into requests of an operation.

    Args:
        kind: `throttle`: answer that there are too many requests; `refuse`: answer `error`;
            `error`: answer HTTP 500; `drop`: close the connection without executing the request;
            `lose`: execute the request, but close the connection before the answer; `delay`:
            execute it after `seconds`; `act`: call `action` before executing it.
        operation: `CreateTrainingJob`, `sagemaker:CreateTrainingJob`, or a pattern such as `s3:*`.
        times: Number of requests that get the fault; None: all.
        until: Time of the monotonic clock at which the fault ends; None: never.
        error: Error of `refuse`.
        seconds: Seconds of `delay`.
        action: Function of `act`.
    """

    kind: Kind
    operation: str
    times: int | None = 1
    until: float | None = None
    error: ServiceError | None = None
    seconds: float = 0.0
    action: Callable[[], object] | None = None
    hits: int = field(default=0, init=False)  # number of requests so far

    def meets(self, request: Request) -> bool:
        if not any(fnmatchcase(name, self.operation) for name in (request.operation, request.name)):
            return False
        over = self.until is not None and time.monotonic() > self.until
        return not over and (self.times is None or self.hits < self.times)


class Faults:
    """An application with injected faults; a request gets the first fault that matches it."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def _fault_of(self, request: Request) -> Fault | None:
        with self._lock:
            fault = next((each for each in self._faults if each.meets(request)), None)
            if fault:
                fault.hits += 1
        return fault

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = Request.read(environ)
        fault = self._fault_of(request)
        kind = fault and fault.kind
        if kind == "throttle":
            return request.refuse(start_response, _too_many(request))
        if kind == "refuse":
            return request.refuse(start_response, fault.error)
        if kind == "error":
            code = "InternalError" if request.service == "s3" else "InternalFailure"
            return request.refuse(start_response, ServiceError(code, "Something failed.", 500))
        if kind == "drop":
            _close(environ)
        if kind == "lose":
            for _ in self.application(environ, lambda *_: None):
                pass
            _close(environ)
        if kind == "delay":
            time.sleep(fault.seconds)
        if kind == "act":
            fault.action()
        return self.application(environ, start_response)


def _too_many(request: Request) -> ServiceError:
    if request.service == "s3":
        return ServiceError("SlowDown", "Please reduce your request rate.", 503)
    code = "Throttling" if request.service in ("iam", "sts") else "ThrottlingException"
    return ServiceError(code, "Rate exceeded")


def _close(environ: Environ) -> None:
    """Close the connection without an answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("a fault that a test asked for")
