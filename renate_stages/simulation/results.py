"""The results of a simulation: tables, pictures, and MLflow."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from renate_stages import files, tracking
from renate_stages.errors.wording import counted
from renate_stages.evaluation.seeds import SeedInterval
from renate_stages.files.csv_file import csv_text
from renate_stages.params import Params
from renate_stages.reporting.simulation_pictures import draw_simulation
from renate_stages.simulation import one_run
from renate_stages.simulation.settings import BLOCKS, Plan, Run
from renate_stages.tracking.update_run import logged_parameters

FIGURES = ("average", "overall", "forgetting", "backward_transfer", "forward_transfer")
COLUMNS = (*FIGURES, "incremental", "difference", "seconds", "state_bytes")
SHOWN = {
    "average": "average",
    "forgetting": "forgetting",
    "forward_transfer": "forward transfer",
    "backward_transfer": "backward transfer",
    "incremental": "incremental",
    "difference": "difference",
    "seconds": "seconds",
    "state_bytes": "state MB",
}


Table = dict[str, dict[str, SeedInterval]]
"""Intervals by name of the row and of the column."""


def write(plan: Plan, started: float) -> str:
    """Write all results of the finished updates to the folder of the simulation.

        updates.csv    a row for each learner, seed and update
        table.csv      a row for each learner, with mean and interval over the seeds
        report.md      the table, and the pictures
        pictures/      curves, and the matrix of each learner

    Args:
        plan: The simulation.
        started: When this command began, in seconds since 1970.

    Returns:
        The table as text, and where the files are.
    """
    finished = {run: one_run.results_of(plan, run) for run in plan.runs}
    failures = {run: one_run.failure_of(plan, run) for run in plan.runs}
    rows = [_row(plan, run, each) for run, updates in finished.items() for each in updates]
    names = ("learner", "seed", "update", *FIGURES, "seconds", "state_bytes")
    files.write_text(plan.output / "updates.csv", csv_text(names, rows))
    table = table_of(plan, {run: each for run, each in finished.items() if _is_whole(plan, each)})
    files.write_text(plan.output / "table.csv", _table_csv(plan, table))
    pictures = draw_simulation(
        plan.output / "pictures",
        {label: _matrices(plan, label, finished) for label in plan.labels},
        plan.metric,
        lower_is_better=plan.lower_is_better,
    )
    text = _text(plan, table, {run.title: why for run, why in failures.items() if why})
    pages = [f"![{path.stem}](pictures/{path.name})" for path in pictures]
    report = "\n".join([f"# {plan.output.name}", "", text, "", *pages, ""])
    files.write_text(plan.output / "report.md", report)
    if plan.experiment is not None:
        _log(plan, finished, table, started)
    return f"{text}\n\nresults: {plan.output}/report.md, table.csv, updates.csv, pictures/"


def table_of(plan: Plan, finished: Mapping[Run, Sequence[Mapping[str, Any]]]) -> Table:
    """Return the figures after the last update, as intervals over the seeds of each row.

    `incremental` is the mean of `average` over all updates (Rebuffi et al., "iCaRL", CVPR 2017).
    `difference` compares `average` with the first row, paired by seed. `seconds` is the sum over all
    updates.

    Args:
        plan: The simulation.
        finished: Results of the updates of each run that has finished all of them.
    """
    values = {run: _final(plan, updates) for run, updates in finished.items()}
    first = {
        run.seed: each["average"] for run, each in values.items() if run.label == plan.labels[0]
    }
    for run, each in values.items():
        base = first.get(run.seed, math.nan)
        each["difference"] = math.nan if run.label == plan.labels[0] else each["average"] - base
    return {
        label: {
            column: SeedInterval.of(
                [
                    each[column]
                    for run, each in values.items()
                    if run.label == label and not math.isnan(each[column])
                ]
            )
            for column in COLUMNS
        }
        for label in plan.labels
    }


def _final(plan: Plan, updates: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    last = updates[-1]
    averages = [_figure(plan, each, "average") for each in updates]
    return {
        **{name: _figure(plan, last, name) for name in FIGURES},
        "incremental": fmean(averages),
        "seconds": math.fsum(each["seconds"] for each in updates),
        "state_bytes": float(last["state_bytes"]),
    }


def _figure(plan: Plan, result: Mapping[str, Any], name: str) -> float:
    value = result["metrics"].get(plan.metric, {}).get(name)
    return math.nan if value is None else float(value)


def _row(plan: Plan, run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: _figure(plan, result, name) for name in FIGURES}
    known = {name: None if math.isnan(value) else value for name, value in figures.items()}
    own = {name: result[name] for name in ("update", "seconds", "state_bytes")}
    return {"learner": run.label, "seed": run.seed, **own, **known}


def _matrices(
    plan: Plan, label: str, finished: Mapping[Run, Sequence[Mapping[str, Any]]]
) -> list[dict[int, dict[int, float]]]:
    """Return a matrix a[update][holdout] for each seed of a row."""
    matrices = []
    for run, updates in finished.items():
        if run.label == label and updates:
            matrix: dict[int, dict[int, float]] = {}
            for each in updates:
                holdouts = each["metrics"].get(plan.metric, {}).get("holdout", {})
                known = {int(n): value for n, value in holdouts.items() if value is not None}
                matrix[each["update"]] = known
            matrices.append(matrix)
    return matrices


def _is_whole(plan: Plan, updates: Sequence[Mapping[str, Any]]) -> bool:
    return len(updates) == plan.updates


def _table_csv(plan: Plan, table: Table) -> str:
    names = [f"{column}{end}" for column in COLUMNS for end in ("", "_low", "_high")]
    rows = []
    for label in plan.labels:
        row: dict[str, Any] = {"learner": label, "seeds": table[label]["average"].seeds}
        for column, each in table[label].items():
            ends = (each.mean, each.mean - each.half, each.mean + each.half)
            for end, value in zip(("", "_low", "_high"), ends, strict=True):
                row[f"{column}{end}"] = None if math.isnan(value) else value
        rows.append(row)
    return csv_text(("learner", "seeds", *names), rows)


def _text(plan: Plan, table: Table, failures: Mapping[str, str]) -> str:
    """Return the table in Markdown; columns without a value are left out."""
    columns = [
        name for name in SHOWN if any(not math.isnan(row[name].mean) for row in table.values())
    ]
    title = f"{plan.metric} after {counted(plan.updates, 'update')}: mean over the seeds"
    if any(not math.isnan(row["average"].half) for row in table.values()):
        title += " ± half of the 95 % interval"
    if "difference" in columns:
        title += f"; difference from {plan.labels[0]}, paired by seed"
    lines = [
        title,
        "",
        f"| {' | '.join(('learner', 'seeds', *(SHOWN[name] for name in columns)))} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for label, row in table.items():
        scales = {"state_bytes": 1e-6}  # shown in MB
        cells = [_shown(row[name], scales.get(name, 1.0)) for name in columns]
        lines.append(f"| {' | '.join((label, str(row['average'].seeds), *cells))} |")
    if failures:
        lines += ["", *(f"failed: {title}, {why}" for title, why in failures.items())]
    return "\n".join(lines)


def _log(
    plan: Plan,
    finished: Mapping[Run, Sequence[Mapping[str, Any]]],
    table: Table,
    started: float,
) -> None:
    """Log the simulation as an MLflow run, with one nested run for each learner and seed."""
    settings = logged_parameters(Params.parse(dict(plan.blocks), "simulate.yaml"))
    settings = {name: settings[name] for name in BLOCKS} | {"updates": plan.updates}
    key = hashlib.sha256(json.dumps([vars(run) for run in plan.runs]).encode()).hexdigest()
    identity = tracking.RunIdentity(plan.experiment or "", plan.output.name, key)
    with tracking.new_run(plan.config.parent, identity) as tracker:
        tracker.log_parameters(settings)
        means = {
            label: {name: _or_none(row[name].mean) for name in COLUMNS}
            for label, row in table.items()
        }
        tracker.log_metrics(means)
        for number, (run, updates) in enumerate(finished.items()):
            points = {
                each["update"]: {
                    name: value
                    for name, value in _row(plan, run, each).items()
                    if isinstance(value, int | float) and name not in ("seed", "update")
                }
                for each in updates
            }
            parameters = {"learner": run.learner, "seed": run.seed, **run.hyperparameters}
            parameters |= {f"retention.{name}": value for name, value in run.retention.items()}
            tracker.log_trial(
                tracking.TrialRun(
                    number,
                    {name: str(value) for name, value in parameters.items()},
                    points,
                    {},
                    "FINISHED" if _is_whole(plan, updates) else "FAILED",
                    int(started * 1000),
                    int(started * 1000),
                    run.title,
                )
            )
        for name in ("report.md", "table.csv", "updates.csv", "pictures"):
            tracker.log_artifact(plan.output / name, "pictures" if name == "pictures" else None)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _shown(interval: SeedInterval, scale: float) -> str:
    """Return a mean as text, with half of its interval if that is known."""
    values = [scale * each for each in (interval.mean, interval.half) if not math.isnan(each)]
    return " ± ".join(f"{each:.3f}" if abs(each) < 10 else f"{each:.1f}" for each in values) or "-"
