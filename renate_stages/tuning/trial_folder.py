"""The record of a trial: its configuration and reports, in memory and on disk.

    <digest of the configuration>/configuration.json
                                  reports.jsonl      one report per line and epoch
                                  log.txt            output of the trial
                                  checkpoints/       of a paused or finished trial

The folder remains if the search is killed. The next search with the same inputs shows its scheduler
the recorded reports first, and starts a process only to continue after them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from renate_stages import files

LOG = "log.txt"
LINES = 20  # last lines of a log to show
REPORTS = "reports.jsonl"

Status = Literal["running", "paused", "stopped", "completed", "failed"]


@dataclass(frozen=True)
class Report:
    """The report of a trial after an epoch.

    Args:
        epoch: Number of the epoch, >= 1.
        steps: Optimizer steps so far.
        metrics: Metrics on validation data by name; the objective has its metric's name.
        final: Whether the training is over and the model complete.
    """

    epoch: int
    steps: int
    metrics: Mapping[str, float]
    final: bool = False


_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


def _whole(lines: Iterable[str]) -> Iterator[Report]:
    """Yield the reports in lines, up to an incomplete one that a killed search may leave."""
    for line in lines:
        with suppress(ValidationError):
            if line.endswith("\n"):
                yield _REPORT.validate_json(line, strict=True)
                continue
        return


@dataclass
class TrialFolder:
    """One trial.

    Args:
        number: Number of the trial, from 0, in the order of the scheduler's suggestions.
        configuration: All hyperparameters, including constants.
        folder: The trial's folder.
        reports: All known reports, including those of a killed search.
        shown: Number of reports that the scheduler has seen, or sees next.
        status: The status; `stopped` means by the scheduler, or because the budget was used up.
        reason: Why it failed, in one line.
        finished: Whether it ended before the search did.
        started, ended: Seconds since 1970, for display.
    """

    number: int
    configuration: Mapping[str, Any]
    folder: Path
    reports: list[Report] = field(default_factory=list)
    shown: int = 0
    status: Status = "running"
    reason: str = ""
    finished: bool = False
    started: float = field(default_factory=time.time)
    ended: float = 0.0

    @classmethod
    def open(cls, number: int, configuration: Mapping[str, Any], folder: Path) -> TrialFolder:
        """Open the record of a trial, with the reports of a killed search if there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "configuration.json", dict(configuration))
        path = folder / REPORTS
        lines = path.read_text("utf-8", "replace").splitlines(True) if path.is_file() else []
        reports = list(_whole(lines))
        if len(reports) < len(lines):  # new reports must not be appended to an incomplete line
            files.write_text(path, "".join(lines[: len(reports)]))
        return cls(number, configuration, folder, reports)

    def add(self, report: Report) -> None:
        """Record a new report."""
        self.reports.append(report)
        with (self.folder / REPORTS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(vars(report)) + "\n")

    @property
    def seen(self) -> list[Report]:
        """The reports that the scheduler has seen."""
        return self.reports[: self.shown]

    @property
    def is_whole(self) -> bool:
        """Whether its training is over and the scheduler has seen the final report."""
        return self.shown > 0 and self.seen[-1].final

    def log(self) -> list[str]:
        """Return the last lines of its output."""
        path = self.folder / LOG
        if not path.is_file():
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]

    def drop_checkpoint(self) -> None:
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
