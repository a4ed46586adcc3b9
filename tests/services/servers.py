"""Start and stop MLflow servers on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

START_TIMEOUT = 240  # seconds; 11 to 35 were measured
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # otherwise the server starts ten processes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@contextmanager
def mlflow_server(folder: Path, store: str, *options: str) -> Iterator[str]:
    """Serve a store, with MLflow's pages; yield the address."""
    with run_mlflow(
        folder, "/health", "server", "--workers", "1", "--backend-store-uri", store, *options
    ) as address:
        yield address


@contextmanager
def run_mlflow(folder: Path, health: str, *arguments: str, **environment: str) -> Iterator[str]:
    """Run `mlflow ARGUMENTS` on a free port until the end of the block; yield its address.

    Args:
        folder: Working folder, in which the log is written.
        health: URL path that answers when the server is ready.
        arguments: Arguments of `mlflow`.
        environment: Additional environment variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        *arguments,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | QUIET | environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_healthy(f"{address}{health}", process, Path(log.name))
        yield address
    finally:
        end_group(process)
        log.close()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process group, given its leading process."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            dead = process.poll() is not None or time.monotonic() > end
            assert not dead, f"the server did not start: {log.read_text()}"
            time.sleep(0.2)
