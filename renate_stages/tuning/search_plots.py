"""What `dvc plots` shows of a search.

tuning.csv          epochs (spent by all trials so far), best (so far), trial (that is best);
                    no rows without a search: dvc.yaml names it
tuning_trials.csv   trial, status, epochs, value (its last), and its configuration
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.evaluation.plots import csv_text
from renate_stages.state import TUNING_HISTORY
from renate_stages.tuning.history import History, TrialRecord
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.outcome import SEARCH, Search

Rows = list[dict[str, Any]]


def write_search_plots(folder: Path, tuning: Path, update: int) -> None:
    """Write the CSVs of one update's search.

    Args:
        folder: Where all plot data lies.
        tuning: What `tune` wrote.
        update: Number of the update.
    """
    said = Search.read(tuning / SEARCH)
    records: list[TrialRecord] = []
    objective = Objective("")
    if said is not None:
        objective = Objective(**dict(said.objective))
        trials = History.read(tuning / TUNING_HISTORY).trials
        records = [record for record in trials if record.update == update]
    progress = best_so_far(records, objective)
    files.write_text(folder / "tuning.csv", csv_text(("epochs", "best", "trial"), progress))
    if records:
        rows = [_row(record, objective) for record in records]
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        files.write_text(folder / "tuning_trials.csv", csv_text(columns, rows))


def best_so_far(records: list[TrialRecord], objective: Objective) -> Rows:
    """Return, for each epoch that trials have run one after the other, the best value so far."""
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
