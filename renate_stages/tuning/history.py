"""Read and write `tuning_history.csv`: all trials of all updates, one row per epoch of a trial.

Columns: update, trial, status, epoch, steps, `config.NAME` for each hyperparameter, `metric.NAME`
for each metric. A trial that failed before its first epoch has one row with epoch 0. A cell is
empty if the trial has no such value; a string that looks like a number or a boolean is quoted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.files.typed import is_number
from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning.experience import Experience
from renate_stages.tuning.records import TrialEpoch, TrialRecord

FIXED = ("update", "trial", "status", "epoch", "steps")
CONFIG, METRIC = "config.", "metric."


@dataclass(frozen=True)
class History:
    """The trials of all updates, ordered by update and trial.

    Example:
        >>> history = History.read(project.parent / "tuning_history.csv")
        >>> experience = history.usable(params.search_space, "accuracy", "max")
        >>> history.with_trials(new_trials).write(project.state / "tuning_history.csv")
    """

    trials: tuple[TrialRecord, ...] = field(default=())

    def with_trials(self, trials: Iterable[TrialRecord]) -> History:
        """Return a history with more trials; they replace trials of the same update and number."""
        by_key = {(record.update, record.trial): record for record in (*self.trials, *trials)}
        return History(tuple(by_key[key] for key in sorted(by_key)))

    def usable(self, space: SearchSpace, metric: str, mode: str) -> Experience:
        """Return the trials that are usable in a search space, with notes about the others.

        Args:
            space: The present search space.
            metric: The metric to optimize.
            mode: `max` or `min`.
        """
        return Experience.of(self.trials, space, metric, mode)

    @classmethod
    def read(cls, path: Path) -> History:
        """Read the file; a missing or empty file means no trials.

        Raises:
            MalformedFileError: If it does not have the expected format.
        """
        if not path.is_file():
            return cls()
        try:
            rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
            return cls._of_rows(rows)
        except (ValueError, csv.Error, KeyError, TypeError) as error:
            raise MalformedFileError(path, "a tuning history", str(error)) from error

    @classmethod
    def _of_rows(cls, rows: list[list[str]]) -> History:
        if not rows:
            return cls()
        header = rows[0]
        missing = [name for name in FIXED if name not in header]
        if missing:
            raise ValueError(f"column {missing[0]} is missing")
        records: dict[tuple[int, int], TrialRecord] = {}
        for cells in rows[1:]:
            if len(cells) != len(header):
                raise ValueError(f"expected {len(header)} cells, found {len(cells)} in {cells}")
            row = dict(zip(header, cells, strict=True))
            key = int(row["update"]), int(row["trial"])
            before = records[key].epochs if key in records else ()
            epoch, steps = int(row["epoch"]), int(row["steps"])
            values = _values(row, METRIC)
            if not all(type(each) is float or is_number(each) for each in values.values()):
                raise ValueError(f"a metric is not a number in {cells}")
            added = (TrialEpoch(epoch, steps, values),) if epoch else ()
            records[key] = TrialRecord(*key, row["status"], _values(row, CONFIG), before + added)
        return cls(tuple(records[key] for key in sorted(records)))

    def write(self, path: Path) -> None:
        """Write the file; the same trials give the same bytes."""
        configured = {CONFIG + name for each in self.trials for name in each.configuration}
        measured = {METRIC + n for each in self.trials for e in each.epochs for n in e.metrics}
        header = [*FIXED, *sorted(configured), *sorted(measured)]
        stream = io.StringIO()
        table = csv.DictWriter(stream, header, restval="", lineterminator="\n")
        table.writeheader()
        for trial in self.trials:
            values = {CONFIG + n: _text(each) for n, each in trial.configuration.items()}
            head = {"update": trial.update, "trial": trial.trial, "status": trial.status}
            for each in trial.epochs or (TrialEpoch(0, 0, {}),):
                metrics = {METRIC + n: _text(float(v)) for n, v in each.metrics.items()}
                place = {"epoch": each.epoch, "steps": each.steps}
                table.writerow(head | place | values | metrics)
        files.write_text(path, stream.getvalue())


def _values(row: Mapping[str, str], prefix: str) -> dict[str, Any]:
    named = {n.removeprefix(prefix): cell for n, cell in row.items() if n.startswith(prefix)}
    return {name: _parsed(cell) for name, cell in named.items() if cell != ""}


def _text(value: Any) -> str:
    """Format a value as a cell: JSON, but without quotes if a string is read back as itself."""
    if isinstance(value, str) and value != "" and isinstance(_parsed(value), str):
        return value if not value.startswith('"') else json.dumps(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _parsed(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell
