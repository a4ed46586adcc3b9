"""Messages between a search and its trials: one JSON object per line, over a Unix socket.

    search to trial   {"configuration": ..., "folder": ..., "environment": ...,
                       "rehearses": true or false}                              first message
                      {"answer": "go"} or {"answer": "pause"}                       to each report
    trial to search   {"epoch": 3, "steps": 42, "metrics": {...}, "final": false}   report, then wait
                      {"files": {...}}       before a report: SHA-256 of newly used files by path
                      {"alive": true}        sign of life
                      {"paused": true}       the checkpoint is written, and the trial ends
                      {"mistake": "..."}     the trial ends with an error of the user

A trial waits for the answer to its report, so its course depends only on the scheduler's decisions,
never on timing.
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

BEAT = 1.0  # minimum seconds between two signs of life

Message = dict[str, Any]


class TrialChannel:
    """The trial's end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rwb")
        self._last_beat = time.monotonic()

    def send(self, **message: Any) -> None:
        """Send a message.

        Raises:
            SystemExit: If the search has ended, so that the trial is useless.
        """
        try:
            self._stream.write(json.dumps(message).encode() + b"\n")
            self._stream.flush()
        except OSError:
            raise SystemExit(0) from None

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            SystemExit: If the search has ended.
        """
        line = self._stream.readline()
        if not line:
            raise SystemExit(0)
        return json.loads(line)

    def beat(self) -> None:
        """Send a sign of life, unless the last one is less than `BEAT` seconds old."""
        if time.monotonic() - self._last_beat >= BEAT:
            self._last_beat = time.monotonic()
            self.send(alive=True)


class SearchChannel:
    """The search's end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._partial = b""
        self.heard = time.monotonic()  # time of the trial's last message
        self.ended = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Send a message; if the trial has ended, it is lost, and `received` sets `ended`."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def received(self) -> Iterator[Message]:
        """Yield the messages that have arrived, without waiting."""
        while not self.ended:
            try:
                piece = os.read(self.fileno(), 65536) if self._has_piece() else None
            except OSError:  # the trial was killed while it sent a message
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
