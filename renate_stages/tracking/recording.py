"""What a stage logs where MLflow cannot be reached: kept in a file, and logged later from it.

A stage that runs in the cloud writes its commands to the file that `RENATE_STAGES_TRACKING_FILE`
names. The file comes back with the stage's outputs; `replaying.py` carries the commands out.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

FILE_VARIABLE = "RENATE_STAGES_TRACKING_FILE"

Command = dict[str, Any]


class Recording:
    """Stands for a `SideProcess`: appends what it is sent to a file, one JSON object a line.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.answers: dict[str, Any] = {}

    def send(self, command: Command) -> None:
        """Append one command, and the time: milliseconds since 1970."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**command, "at": int(time.time() * 1000)}) + "\n")

    def wait_for(self, answer: str) -> Any:
        """Return nothing: nobody answers."""

    def close(self, command: Command) -> None:
        """Append the last command."""
        self.send(command)


def recorded(path: Path) -> list[Command]:
    """Return the commands in a file, without a last line that is cut off; none without a file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the process that wrote it was killed
            break
    return found
