"""Heavy imports without the garbage collector, which finds nothing in them.

While torch and Lightning come in, a million objects are made that live as long as the process. The
collector walks through them again and again, and once more at the process's end: a sixth of the
time that importing Lightning takes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import with the collector off, and keep it away from what was imported from then on.

    For a process that goes on to use what it imports, as a stage does. Where the collector is off
    already, nothing is changed.

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
