"""A cache of SHA-256 hashes: a file that has not changed is not read again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renate_stages.errors import MalformedFileError
from renate_stages.files import whole
from renate_stages.files.whole import Entry

SETTLED = (
    2 * 10**9
)  # nanoseconds: a file that is younger can change again within one tick of its clock


class Hashes:
    """Knows files by inode, size and time of change, as DVC does.

    Args:
        path: Where what is known is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        if path.is_file():
            try:
                self._known = whole.read_json(path)
            except MalformedFileError:
                self._known = {}  # a passing file: what it knew is found out again

    def entries(self, wanted: Mapping[str, Path]) -> dict[str, Entry]:
        """Return size and SHA-256 of files, and keep them for the next time.

        Args:
            wanted: Files by relative path.
        """
        found = {name: self._entry(name, path) for name, path in wanted.items()}
        whole.write_json(self.path, self._known)
        return found

    def _entry(self, name: str, path: Path) -> Entry:
        now, status = time.time_ns(), path.stat()
        seen = [status.st_ino, status.st_size, status.st_mtime_ns]
        known = self._known.get(name)
        if not isinstance(known, dict) or known.get("seen") != seen:
            known = {"seen": seen, "sha256": whole.sha256(path)}
            if now - status.st_mtime_ns > SETTLED:
                self._known[name] = known
            else:  # an edit in the same tick would leave size and time as they are
                self._known.pop(name, None)
        return {"sha256": known["sha256"], "size": status.st_size}
