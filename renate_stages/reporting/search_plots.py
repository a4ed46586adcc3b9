"""Write plot data of a search for `dvc plots`.

tuning.csv          epochs (of all trials so far), best (value so far), trial (with that value);
                    always written, because dvc.yaml plots it, but without rows if there is no search
tuning_trials.csv   trial, status, epochs, value (the last one), and the configuration
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.files import typed
from renate_stages.files.csv_file import csv_text
from renate_stages.state import TUNING_HISTORY
from renate_stages.tuning.history import History
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.outcome import SEARCH, Search
from renate_stages.tuning.records import TrialRecord

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Searched:
    """The data of one update's search that is plotted.

    Args:
        records: The trials; empty without a search.
        objective: The objective of the search.
    """

    records: tuple[TrialRecord, ...] = ()
    objective: Objective = field(default_factory=lambda: Objective(""))

    @classmethod
    def read(cls, tuning: Path, update: int) -> Searched:
        """Read the results of `tune`.

        Args:
            tuning: Folder with the results.
            update: Number of the update.

        Raises:
            MalformedFileError: If a file is malformed.
        """
        search = Search.read(tuning / SEARCH)
        if search is None:
            return cls()
        path, objective = tuning / TUNING_HISTORY, Objective(**dict(search.objective))
        own = tuple(each for each in History.read(path).trials if each.update == update)
        if not all(objective.metric in epoch.metrics for each in own for epoch in each.epochs):
            problem = f"a trial of update {update} has no {objective.metric}"
            raise MalformedFileError(path, "a tuning history", problem, typed.RUN_AGAIN)
        return cls(own, objective)


def write_search_plots(folder: Path, searched: Searched) -> None:
    """Write the CSVs of one update's search.

    Args:
        folder: Folder of the plot data.
        searched: The search to plot.
    """
    records, objective = searched.records, searched.objective
    progress = best_so_far(records, objective)
    files.write_text(folder / "tuning.csv", csv_text(("epochs", "best", "trial"), progress))
    if records:
        rows = [_row(record, objective) for record in records]
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        files.write_text(folder / "tuning_trials.csv", csv_text(columns, rows))


def best_so_far(records: Sequence[TrialRecord], objective: Objective) -> Rows:
    """Return the best value so far after each epoch, with the trials one after the other."""
    rows: Rows = []
    for record in records:
        for epoch in record.epochs:
            value = epoch.metrics[objective.metric]
            row = rows[-1] if rows else {"epochs": 0, "best": value, "trial": record.trial}
            row = {**row, "epochs": row["epochs"] + 1}
            if objective.better(value, row["best"]):
                row |= {"best": value, "trial": record.trial}
            rows.append(row)
    return rows


def _row(record: TrialRecord, objective: Objective) -> dict[str, Any]:
    values = [epoch.metrics[objective.metric] for epoch in record.epochs]
    return {
        "trial": record.trial,
        "status": record.status,
        "epochs": len(values),
        "value": values[-1] if values else None,
        **record.configuration,
    }
