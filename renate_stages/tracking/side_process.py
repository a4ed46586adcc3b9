"""Send commands to the separate process that writes to MLflow.

Importing MLflow and opening an SQLite store takes about 6.5 seconds of CPU time. In a separate
process this happens while the stage imports torch, and logging happens while the stage works. The
process ends when the stage ends for any reason.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

WRITER = Path(__file__).with_name("writer.py")


class SideProcess:
    """Starts a writer, sends commands to it and collects its answers.

    A failure of MLflow never raises an error here; it is added to `problems`.

    Args:
        folder: The writer's working directory.
        script: The writer's program; None: `writer.py`, which only logs runs.
    """

    def __init__(self, folder: Path, script: Path | None = None) -> None:
        self.problems: list[str] = []
        self.answers: dict[str, Any] = {}
        self._ended = False
        self._partial = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        # In a new session, Ctrl-C and the end of the terminal reach only the stage, which then
        # sends the run's status. With -P, a user's file cannot hide a package of the same name.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script or WRITER), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=folder,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._commands, self._answers = self._process.stdin, self._process.stdout

    def send(self, command: dict[str, Any]) -> None:
        """Queue one command without waiting for the writer."""
        if self._ended:
            return
        try:
            self._commands.write(json.dumps(command).encode() + b"\n")
            self._commands.flush()
        except BrokenPipeError:
            self._receive_until_end()
        self._receive(wait=False)

    def wait_for(self, answer: str) -> Any:
        """Return an answer, or `None` if the writer ends without giving it."""
        while answer not in self.answers and not self._ended:
            self._receive(wait=True)
        return self.answers.get(answer)

    def close(self, command: dict[str, Any]) -> None:
        """Send the last command and wait until everything is written."""
        self.send(command)
        with suppress(BrokenPipeError):  # the writer has ended; its exit code is checked below
            self._commands.close()
        self._receive_until_end()
        code = self._process.wait()
        if code != 0:
            words = self._last_words()
            self.problems.append(f"the process that writes to MLflow ended with code {code}{words}")
        self._answers.close()
        self._stderr.close()

    def _receive_until_end(self) -> None:
        while not self._ended:
            self._receive(wait=True)

    def _receive(self, wait: bool) -> None:
        """Read the writer's answers; if `wait` is true, wait for at least some bytes."""
        descriptor = self._answers.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not self._ended and poll.poll(None if wait else 0):
            wait = False
            piece = os.read(descriptor, 65536)
            self._ended = not piece
            *lines, self._partial = (self._partial + piece).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "problem" in answer:
                    self.problems.append(answer["problem"])
                else:
                    self.answers.update(answer)

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
