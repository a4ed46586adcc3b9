"""Record the MLflow commands of a stage that runs in a job, to log them later.

A stage in the cloud writes records to the file in `RENATE_STAGES_TRACKING_FILE`. The file is
downloaded with the stage's outputs, and `replaying.py` logs its records.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from renate_stages.tracking import records

FILE_VARIABLE = "RENATE_STAGES_TRACKING_FILE"


class Recording:
    """Replaces a `SideProcess`: appends each command to a file, one JSON object per line.

    Args:
        path: The file.
        root: The project's folder; paths of artifacts are relative to it.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.root = root
        self.problems: list[str] = []
        self.answers: dict[str, Any] = {}

    def send(self, command: dict[str, Any]) -> None:
        """Append a command with its time."""
        try:
            record = records.recorded(command, str(self.root), int(time.time() * 1000))
        except ValueError as error:
            self.problems.append(str(error))
            return
        if record is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")

    def wait_for(self, answer: str) -> Any:
        """Return None, because there is no process that answers."""

    def close(self, command: dict[str, Any]) -> None:
        """Append the last command."""
        self.send(command)
