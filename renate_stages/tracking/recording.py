"""Record what a stage logs in a job, to log it later.

A stage that runs in the cloud writes records to the file that `RENATE_STAGES_TRACKING_FILE` names.
The file comes back with the stage's outputs; `replaying.py` logs what it says.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from renate_stages.tracking import records

FILE_VARIABLE = "RENATE_STAGES_TRACKING_FILE"


class Recording:
    """Stands for a `SideProcess`: appends what it is sent to a file, one JSON object a line.

    Args:
        path: The file.
        root: The project's folder, which artifacts are named relative to.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.root = root
        self.problems: list[str] = []
        self.answers: dict[str, Any] = {}

    def send(self, command: dict[str, Any]) -> None:
        """Append what a command says, and the time."""
        try:
            record = records.recorded(command, str(self.root), int(time.time() * 1000))
        except ValueError as error:
            self.problems.append(str(error))
            return
        if record is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")

    def wait_for(self, answer: str) -> Any:
        """Return nothing: nobody answers."""

    def close(self, command: dict[str, Any]) -> None:
        """Append the last command."""
        self.send(command)
