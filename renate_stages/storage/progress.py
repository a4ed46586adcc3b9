"""Show the progress of a transfer: a bar on a terminal, a few lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from renate_stages.errors.redaction import shown

_QUIET = 10.0
"""Seconds between two lines in a log."""
_WIDTH = 24
_CLEAR = "\x1b[K"  # clears the rest of the line, because a number may get shorter


class Progress:
    """Counts transferred files and bytes and prints them on standard error; thread-safe.

    Args:
        doing: `uploading` or `downloading`.
        what: Name of the files: `state`, `data`.
        url: Source or target.
        files: Number of files.
        size: Their total size in bytes.
    """

    def __init__(self, doing: str, what: str, url: str, files: int, size: int) -> None:
        self._title = f"{doing} {what}"
        self._url = shown(url)
        self._files, self._size = files, size
        self._done_files = self._done_bytes = 0
        self._lock = threading.Lock()
        self._on_terminal = sys.stderr.isatty()
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def add(self, size: int) -> None:
        """Count a completely transferred file of `size` bytes."""
        with self._lock:
            self._done_files += 1
            self._done_bytes += size
            now = time.monotonic()
            if self._on_terminal or now - self._printed > _QUIET:
                self._printed = now
                self._print()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._on_terminal and self._done_files:
            print(file=sys.stderr)
        elif kind is None and self._files:
            seconds = time.monotonic() - self._started
            total = f"{self._files} files, {readable(self._size)}, in {seconds:.1f} s"
            print(f"{self._title}: {total} ({self._url})", file=sys.stderr, flush=True)

    def _print(self) -> None:
        files = f"{self._done_files} of {self._files} files"
        line = f"{files}, {readable(self._done_bytes)} of {readable(self._size)}"
        if not self._on_terminal:
            print(f"{self._title}: {line}", file=sys.stderr, flush=True)
            return
        share = self._done_bytes / self._size if self._size else 1.0
        bar = ("#" * round(share * _WIDTH)).ljust(_WIDTH)
        print(f"\r{self._title} [{bar}] {line}{_CLEAR}", end="", file=sys.stderr, flush=True)


def readable(size: float) -> str:
    """Return a number of bytes in a readable form such as `1.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
