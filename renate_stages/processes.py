"""End a process together with its parent, and import heavy packages faster."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends for any reason (Linux only)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call above took effect
        os._exit(1)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Turn the garbage collector off during imports, and exclude imported objects from it.

    Importing torch and Lightning creates a million objects that live as long as the process. The
    collector would walk through them again and again, and once more when the process ends, which is
    a sixth of Lightning's import time. Use this in a process that uses what it imports, such as a
    stage. If the collector is already off, or Lightning is imported already, nothing is changed.

    Example:
        >>> with heavy_imports():
        ...     import pytorch_lightning
    """
    if not gc.isenabled() or "pytorch_lightning" in sys.modules:
        yield
        return
    gc.collect()  # freeze() keeps all existing objects, so remove garbage first
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
