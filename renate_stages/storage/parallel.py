"""Apply a function to many files, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

WORKERS = 8
"""Files at a time; each that travels holds at most `2 * checksums.PART` bytes, or four parts."""


def in_parallel(act: Callable[[str], None], names: Iterable[str]) -> None:
    """Act on each name, some at a time; after the first failure begin no more, and raise it."""
    stop = threading.Event()

    def unless_stopped(name: str) -> None:
        if not stop.is_set():
            try:
                act(name)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="remote") as pool:
        try:
            list(pool.map(unless_stopped, names))
        finally:  # Ctrl-C comes here, while it waits
            stop.set()
