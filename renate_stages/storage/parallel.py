"""Apply a function to many files in a few threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

WORKERS = 8
"""Threads; each transfer needs at most `2 * checksums.PART` bytes of memory, or four parts."""


def in_parallel(act: Callable[[str], None], names: Iterable[str]) -> None:
    """Call `act` for each name in parallel; after the first failure, start no more and raise it."""
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
        finally:  # also after Ctrl-C, which interrupts the wait for results
            stop.set()
