"""End a process with its parent, and import heavy packages quickly."""

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
    """Have this process killed when the one that started it ends, however that ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended in between
        os._exit(1)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import with the garbage collector off, and keep it away from what was imported from then on.

    While torch and Lightning are imported, a million objects are made that live as long as the
    process. The collector would walk through them again and again, and once more when the process
    ends: a sixth of the time that importing Lightning takes. It is for a process that goes on to use
    what it imports, as a stage does. Where the collector is off already, nothing is changed.

    Example:
        >>> with heavy_imports():
        ...     import pytorch_lightning
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()  # freeze() keeps all there is, so garbage has to go before
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
