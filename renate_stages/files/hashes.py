"""A cache of SHA-256 hashes, so that unchanged files are read only once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renate_stages.errors import MalformedFileError
from renate_stages.files import whole
from renate_stages.files.whole import Entry

SETTLED = 2 * 10**9
"""Nanoseconds; a younger file may change again without a new modification time."""


class Hashes:
    """Hashes of files, identified by inode, size and modification time, as DVC does.

    Args:
        path: File that stores the known hashes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        if path.is_file():
            try:
                self._known = whole.read_json(path)
            except MalformedFileError:
                self._known = {}  # it is only a cache, so start with an empty one

    def entries(self, wanted: Mapping[str, Path]) -> dict[str, Entry]:
        """Return size and SHA-256 of files, and store them for later calls.

        Args:
            wanted: Files by relative path.
        """
        entries = {name: self._entry(name, path) for name, path in wanted.items()}
        whole.write_json(self.path, self._known)
        return entries

    def _entry(self, name: str, path: Path) -> Entry:
        now, status = time.time_ns(), path.stat()
        seen = [status.st_ino, status.st_size, status.st_mtime_ns]
        known = self._known.get(name)
        if not isinstance(known, dict) or known.get("seen") != seen:
            known = {"seen": seen, "sha256": whole.sha256(path)}
            if now - status.st_mtime_ns > SETTLED:
                self._known[name] = known
            else:  # an edit in the same clock tick might not change size and time
                self._known.pop(name, None)
        return {"sha256": known["sha256"], "size": status.st_size}
