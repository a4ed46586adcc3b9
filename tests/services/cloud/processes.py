"""Ends what jobs started, whatever becomes of the tests: `python processes.py FOLDER < pipe`.

A container takes everything inside with it when it ends. Here, processes belong to a container if
their environment names its folder, which reaches those too that left its session or its group,
as the workers of torch.distributed.run do.
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
        # it ended meanwhile, or belongs to someone else
        with suppress(OSError):
            if entry.name.isdigit() and marker in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def end_all(folder: Path) -> None:
    """End them all, until none is left."""
    end = time.monotonic() + 10
    while (found := inside(folder)) and time.monotonic() < end:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def catches(process: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, whose end ends this
    sys.stdin.buffer.read()  # until the tests are over, or dead
    end_all(Path(sys.argv[1]) / "jobs")
    shutil.rmtree(sys.argv[1], ignore_errors=True)
