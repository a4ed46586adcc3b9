"""The pipe between a search and a trial: one JSON object per line, over a Unix socket.

    search to trial   {"configuration": ..., "folder": ..., "environment": ...}     first
                      {"answer": "go"} or {"answer": "pause"}                       to each report
    trial to search   {"epoch": 3, "steps": 42, "metrics": {...}, "final": false}   then it waits
                      {"files": {...}}       before a report, what is new: SHA-256 by path
                      {"alive": true}        now and then
                      {"paused": true}       its checkpoint is written, and it ends
                      {"mistake": "..."}     it ends with an error of the user's

A trial waits for the answer to its report: what it does depends on what the scheduler says, never on
how fast either is.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

BEAT = 1.0  # seconds between two signs of life, at least

Message = dict[str, Any]


class TrialChannel:
    """A trial's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rwb")
        self._last_beat = time.monotonic()

    def send(self, **message: Any) -> None:
        """Send a message.

        Raises:
            SystemExit: If the search is gone: there is nobody to work for.
        """
        try:
            self._stream.write(json.dumps(message).encode() + b"\n")
            self._stream.flush()
        except OSError:
            raise SystemExit(0) from None

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            SystemExit: If the search is gone.
        """
        line = self._stream.readline()
        if not line:
            raise SystemExit(0)
        return json.loads(line)

    def beat(self) -> None:
        """Send a sign of life, if the last was not just now."""
        if time.monotonic() - self._last_beat >= BEAT:
            self._last_beat = time.monotonic()
            self.send(alive=True)


class SearchChannel:
    """The search's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._partial = b""
        self.heard = time.monotonic()  # when the trial last sent anything
        self.ended = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Send a message; to a trial that is gone it is lost, and `received` says so."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def received(self) -> Iterator[Message]:
        """Yield what has come in, without waiting."""
        while not self.ended:
            try:
                piece = os.read(self.fileno(), 65536) if self._has_piece() else None
            except OSError:  # the trial was killed in the middle of a message
                piece = b""
            if piece is None:
                return
            self.heard = time.monotonic()
            self.ended = not piece
            *lines, self._partial = (self._partial + piece).split(b"\n")
            yield from map(json.loads, lines)

    def close(self) -> None:
        self.ended = True
        self._connection.close()

    def _has_piece(self) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))
