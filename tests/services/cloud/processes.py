"""End all processes of jobs, even if the tests die: `python processes.py FOLDER < pipe`.

When a real container ends, all its processes end. Here, a process belongs to a container if its
environment contains the container's folder. This includes processes that left the session or
process group, such as the workers of torch.distributed.run.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


def inside(folder: Path) -> list[int]:
    """List the processes that a container with this folder started."""
    marker = f"{folder}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        # the process ended meanwhile, or belongs to another user
        with suppress(OSError):
            if entry.name.isdigit() and marker in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def end_all(folder: Path) -> None:
    """Kill the processes of a container, until none is left."""
    end = time.monotonic() + 10
    while (found := inside(folder)) and time.monotonic() < end:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def catches(process: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and they end this
    sys.stdin.buffer.read()  # until the tests are over, or dead
    end_all(Path(sys.argv[1]) / "jobs")
    shutil.rmtree(sys.argv[1], ignore_errors=True)
