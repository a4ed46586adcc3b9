"""Write the report in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from renate_stages.gate.verdict import section
from renate_stages.reporting.change import verdict
from renate_stages.reporting.data_section import data_section
from renate_stages.reporting.markdown import UNKNOWN, table
from renate_stages.reporting.state_rows import FIGURES, figure_rows, lineage_rows
from renate_stages.shift.data_metrics import DataMetrics

if TYPE_CHECKING:
    from renate_stages.evaluation.history import EvaluationHistory
    from renate_stages.gate.figures import Measured
    from renate_stages.gate.verdict import Verdict
    from renate_stages.params import EvaluationParams
    from renate_stages.state import State
    from renate_stages.tuning.outcome import Search

WEAKEST = 5  # number of weakest parts in the report


@dataclass(frozen=True)
class Findings:
    """Results of the stages for the report; empty if a project of an old release lacks them.

    Args:
        data: Figures of the data from `prepare`.
        search: Summary of the search from `tune`; None without a search.
        figures: Figures from `train`, as in `metrics/update.json`.
        hyperparameters: The hyperparameters that the model was trained with.
        parent: Number of the update that this one starts from; 0 if that has no plots.
        gate: The gate's verdict.
        measured: The measurements behind the verdict.
        pictures: A line of Markdown with a link for each picture.
    """

    data: DataMetrics = field(default_factory=DataMetrics)
    search: Search | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    parent: int = 0
    gate: Verdict | None = None
    measured: Measured | None = None
    pictures: Sequence[str] = ()


def update_report(state: State, evaluation: EvaluationParams, findings: Findings) -> str:
    """Return the report of the update that wrote a state, for example for a pull request.

    Args:
        state: The update's state.
        evaluation: Parameters with the headline metric and its better direction.
        findings: Results of the update's stages.
    """
    made, figures = state.provenance, findings.figures
    history = state.evaluations()
    return "\n".join(
        [
            f"# Update {made.update}",
            "",
            *verdict(history, made.update, evaluation, figures),
            "",
            *(section(findings.gate) if findings.gate else []),
            f"## {evaluation.metric} on every holdout",
            "",
            *_holdout_table(history, made.update, evaluation.metric, figures, findings.measured),
            "",
            *_weakest(figures),
            "## Over all updates",
            "",
            *table(FIGURES, [*figure_rows(state, evaluation), *_training_figures(figures)]),
            "",
            *_plasticity(figures),
            *_pictures(findings.parent, findings.pictures),
            *data_section(findings.data),
            *(_search(findings.search) or _hyperparameters(findings.hyperparameters)),
            *_forgotten(made.left, made.kind),
            "## Lineage",
            "",
            *table(("what", "value"), lineage_rows(state)),
            "",
            f"To reproduce it, run `git checkout update-{made.update} && dvc pull && dvc repro`.",
            f"To roll back to it, run `git checkout update-{made.update} && dvc checkout`.",
            "",
        ]
    )


def _hyperparameters(values: Mapping[str, Any]) -> list[str]:
    rows = [(f"`{name}`", value) for name, value in sorted(values.items())]
    return ["## Hyperparameters", "", *table(("name", "value"), rows), ""] if rows else []


def _search(search: Search | None) -> list[str]:
    """Return the section on the search; empty if hyperparameters are constants."""
    if search is None:
        return []
    best, objective = search.best, search.objective
    trials = ", ".join(f"{count} {status}" for status, count in search.trials.items())
    over = {"union": "all updates'", "new": "this update's", "weighted": "all updates', weighted,"}
    reasons = search.not_repeatable_because
    repeatable = "The search is reproducible: the same inputs give the same result."
    if reasons:
        repeatable = f"A repeated search may give another result: {'; '.join(reasons)}."
    auto = search.auto_learner
    rows = [
        ("scheduler", search.scheduler),
        ("trials", trials),
        ("epochs of all trials", search.epochs),
        ("ended by", search.ended_by),
        *([("`learner: auto` searched", ", ".join(auto.learners))] if auto else []),
        *([("because", "; ".join(auto.reasons))] if auto else []),
        ("best", f"trial {best.trial}, after epoch {best.epoch}"),
        (f"its {objective.metric} on {over[objective.over]} validation data", best.value),
        *((f"`{name}`", value) for name, value in best.configuration.items()),
        *(
            (f"best {objective.metric} with {name}", value)
            for name, value in search.learners.items()
        ),
    ]
    history = [f"- {note}" for note in search.history] or ["No earlier trials were used."]
    return ["## Search", "", *table(("what", "value"), rows), "", *history, "", repeatable, ""]


def _forgotten(left: Mapping[str, Mapping[str, Any]], kind: str) -> list[str]:
    """Return the section on removed rows: how many left each store, without their content."""
    if not left:
        return ["## Forgotten", "", "No stored example matches.", ""] * (kind == "forget")
    rows = [
        (name, each["rows"], f"`{each['before']}`", f"`{each['after']}`" if each["after"] else "")
        for name, each in left.items()
    ]
    return [
        "## Removed rows",
        "",
        "Rows removed by `forget.yaml` and `retention`, including rows that were already dead. The",
        "weights may still reflect them.",
        "",
        *table(("store", "rows", "before", "after"), rows),
        "",
    ]


def _holdout_table(
    history: EvaluationHistory,
    update: int,
    metric: str,
    figures: Mapping[str, Any],
    measured: Measured | None,
) -> list[str]:
    """Return a table of the new model's and the parent's figures, and those of another champion."""
    before = history.matrix(metric, "before").get(update, {})
    flips = (figures.get("flips") or {}).get("holdout", {})
    parent_serves = measured is not None and measured.relation == "parent"
    champion: dict[int, float] = {}
    if measured is not None and measured.against == "champion" and not parent_serves:
        champion = {n: each.metrics[metric] for n, each in (measured.opponent or {}).items()}
    rows = []
    for holdout, after in history.matrix(metric).get(update, {}).items():
        start = before.get(holdout)
        gain = "" if start is None else f"{after - start:+.4f}"
        row = [f"update {holdout}", "" if start is None else f"{start:.4f}", after, gain]
        if flips:
            changed = flips.get(str(holdout), {})
            shares = [changed.get(side) for side in ("negative", "positive")]
            row += [UNKNOWN if share is None else f"{100 * share:.1f} %" for share in shares]
        if champion:
            row += [champion[holdout], f"{after - champion[holdout]:+.4f}"]
        rows.append(row)
    head = ["holdout of", "parent's model", "new model", "change"]
    head += ["now wrong", "now correct"] if flips else []
    if champion and measured is not None:
        head += [f"champion (update {measured.champion_update})", "change from champion"]
    note = ["", "The champion is the parent's model."] if parent_serves else []
    return [*table(head, rows), *note]


def _weakest(figures: Mapping[str, Any]) -> list[str]:
    """Return the section on the classes and slices with the lowest accuracy."""
    parts = [(f"class {label}", value) for label, value in figures.get("classes", {}).items()]
    for name, values in figures.get("slices", {}).items():
        parts += [(f"{name} {value}", accuracy) for value, accuracy in values.items()]
    if not parts:
        return []
    lowest = sorted(parts, key=lambda part: part[1])[:WEAKEST]  # stable, so ties keep their order
    return ["## Weakest parts", "", *table(("part of all holdouts", "accuracy"), lowest), ""]


def _plasticity(figures: Mapping[str, Any]) -> list[str]:
    """Return the section on the ability to learn, before and after the update."""
    after = figures.get("plasticity")
    if not after:
        return []
    names = {
        "dead_units": "dead units, share",
        "effective_rank": "effective rank of the features",
        "feature_dimension": "dimension of the features",
        "weight_norm": "root mean square of the trained weights",
    }
    rows = [
        (text, *(UNKNOWN if each is None else f"{each:.4g}" for each in pair))
        for name, text in names.items()
        if (pair := (after["before"].get(name), after.get(name))) != (None, None)
    ]
    lines = table(("figure", "before training", "after training"), rows)
    return ["## Plasticity", "", *lines, ""] if rows else []


def _training_figures(figures: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    """Return calibration and training counts; not time and memory, which vary between runs."""
    rows: list[tuple[str, object, str]] = []
    error = (figures.get("calibration") or {}).get("error")
    if error is not None:
        rows.append(("expected calibration error", error, "of confidence from accuracy, all rows"))
    training = figures.get("training", {})
    return rows + [(f"{name} of training", count, "") for name, count in training.items()]


def _pictures(parent: int, pictures: Sequence[str]) -> list[str]:
    against = f" or `dvc plots diff update-{parent}`" if parent else ""
    links = [
        "The pictures are stored next to this report on the machine that made it. They are in neither",
        "Git nor DVC, so a pull request does not have them. `renate-stages publish` draws them in any",
        "checkout of this update.",
        "",
        *pictures,
        "",
    ]
    return [
        "## Pictures and cost",
        "",
        f"To see the plots, run `dvc plots show`{against}. PNG files are in this update's MLflow run,",
        "under `plots/`. The run also has seconds, examples, peak memory and state size as `cost.*`.",
        "",
        *(links if pictures else []),
    ]
