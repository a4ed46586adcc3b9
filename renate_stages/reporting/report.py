"""Write the report and the model card, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from renate_stages.errors.redaction import hide_secrets
from renate_stages.gate.verdict import section
from renate_stages.reporting.change import verdict
from renate_stages.shift.data_metrics import DataMetrics

if TYPE_CHECKING:
    from renate_stages.evaluation.history import EvaluationHistory
    from renate_stages.gate.figures import Measured
    from renate_stages.gate.verdict import Verdict
    from renate_stages.params import EvaluationParams
    from renate_stages.state import State
    from renate_stages.tuning.outcome import Search

WEAKEST = 5  # parts that the report names
UNKNOWN = "unknown"  # of a figure that is not finite


@dataclass(frozen=True)
class Findings:
    """What the stages found of an update; empty where an older project lacks it.

    Args:
        data: What `prepare` says of the data.
        search: What `tune` says of its search; None without one.
        figures: What `train` measured, as in `metrics/update.json`.
        hyperparameters: Those that the model was trained with.
        parent: Number of the update that this one starts from; 0: none that has plots.
        gate: What the gate says.
        measured: What it was said of.
        pictures: A line of Markdown for each, which links it.
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
    """Return the report of the update that wrote a state, for a pull request to carry.

    Args:
        state: What the update left.
        evaluation: Names the headline metric and which direction is better.
        findings: Of that update.
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
            *_table(("figure", "value"), [*_figures(state, evaluation), *_told(figures)]),
            "",
            *_pictures(findings.parent, findings.pictures),
            *_data(findings.data),
            *(_search(findings.search) or _hyperparameters(findings.hyperparameters)),
            *_forgotten(made.left, made.kind),
            "## Lineage",
            "",
            *_table(("what", "value"), _lineage(state)),
            "",
            f"Reproduce it: `git checkout update-{made.update} && dvc pull && dvc repro`.",
            f"Roll back to it: `git checkout update-{made.update} && dvc checkout`.",
            "",
        ]
    )


def model_card(state: State, evaluation: EvaluationParams) -> str:
    """Return the card that lies beside an exported model."""
    return "\n".join(
        [
            f"# Model of update {state.provenance.update}",
            "",
            "Weights: `model.safetensors` (constructor arguments in `model.json`), and the same in",
            "torch's format: `model.ckpt`. Load it with the functions beside it:",
            "",
            "```python",
            "from renate_config import model_fn",
            "",
            'model = model_fn(model_state_url="model.ckpt").eval()',
            "```",
            "",
            *_table(("what", "value"), [*_lineage(state), *_figures(state, evaluation)]),
            "",
        ]
    )


def _data(data: DataMetrics) -> list[str]:
    """Say what came in, and whether it is like what the parent knows."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    rows = [
        (name, split.rows, len(split.classes) or "no labels")
        for name, split in splits.items()
        if split is not None
    ]
    if not rows:
        return []
    said = ["## Data", "", *_table(("split", "examples", "classes"), rows), ""]
    if data.shift is not None and data.shift.tests:
        tests = [
            (
                name,
                UNKNOWN if (p := each.corrected_p_value) is None else f"{p:.2g}",
                UNKNOWN if each.effect_size is None else each.effect_size,
            )
            for name, each in data.shift.tests.items()
        ]
        said += [
            f"Shift against the parent: {data.shift.alarms} of {len(tests)} tests alarm.",
            "",
            *_table(("test", "corrected p-value", "effect size"), tests),
            "",
        ]
    return said


def _hyperparameters(values: Mapping[str, Any]) -> list[str]:
    rows = [(f"`{name}`", value) for name, value in sorted(values.items())]
    return ["## Hyperparameters", "", *_table(("name", "value"), rows), ""] if rows else []


def _search(search: Search | None) -> list[str]:
    """Say how the hyperparameters were chosen; nothing where they are constants."""
    if search is None:
        return []
    best, objective = search.best, search.objective
    trials = ", ".join(f"{count} {status}" for status, count in search.trials.items())
    over = {"union": "all updates'", "new": "this update's", "weighted": "all updates', weighted,"}
    reasons = search.not_repeatable_because
    repeatable = "The same inputs give the same search."
    if reasons:
        repeatable = f"The search need not find the same again: {'; '.join(reasons)}."
    rows = [
        ("scheduler", search.scheduler),
        ("trials", trials),
        ("epochs of all trials", search.epochs),
        ("ended by", search.ended_by),
        ("best", f"trial {best.trial}, after epoch {best.epoch}"),
        (f"its {objective.metric} on {over[objective.over]} validation data", best.value),
        *((f"`{name}`", value) for name, value in best.configuration.items()),
    ]
    history = [f"- {note}" for note in search.history] or ["No earlier trials were used."]
    return ["## Search", "", *_table(("what", "value"), rows), "", *history, "", repeatable, ""]


def _forgotten(left: Mapping[str, Mapping[str, Any]], kind: str) -> list[str]:
    """Say how many rows left which stores, and nothing of their content."""
    if not left:
        return ["## Forgotten", "", "No row that was kept is named.", ""] * (kind == "forget")
    rows = [
        (name, each["rows"], f"`{each['before']}`", f"`{each['after']}`" if each["after"] else "")
        for name, each in left.items()
    ]
    return [
        "## Rows that left",
        "",
        "By `forget.yaml` and `retention`, live and dead ones. The weights may still reflect them.",
        "",
        *_table(("store", "rows", "before", "after"), rows),
        "",
    ]


def _holdout_table(
    history: EvaluationHistory,
    update: int,
    metric: str,
    figures: Mapping[str, Any],
    measured: Measured | None,
) -> list[str]:
    """Tell the new model's figures beside the parent's, and the champion's where it is another."""
    before = history.matrix(metric, "before").get(update, {})
    flips = (figures.get("flips") or {}).get("holdout", {})
    parent_serves = measured is not None and measured.relation == "parent"
    champion: dict[int, float] = {}
    if measured is not None and measured.champion and not parent_serves:
        champion = {n: each.metrics[metric] for n, each in measured.champion.items()}
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
    head += ["now wrong", "now right"] if flips else []
    if champion and measured is not None:
        head += [f"champion (update {measured.champion_update})", "change against it"]
    said = ["", "The champion is the parent's model."] if parent_serves else []
    return [*_table(head, rows), *said]


def _weakest(figures: Mapping[str, Any]) -> list[str]:
    """Name the classes and slices with the lowest accuracy."""
    parts = [(f"class {label}", value) for label, value in figures.get("classes", {}).items()]
    for name, values in figures.get("slices", {}).items():
        parts += [(f"{name} {value}", accuracy) for value, accuracy in values.items()]
    if not parts:
        return []
    lowest = sorted(parts, key=lambda part: part[1])[:WEAKEST]  # stable: equals by their place
    return ["## Weakest parts", "", *_table(("of all holdouts", "accuracy"), lowest), ""]


def _told(figures: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return calibration and what training took; seconds and memory differ from run to run."""
    rows: list[tuple[str, object]] = []
    error = (figures.get("calibration") or {}).get("error")
    if error is not None:
        rows.append(("expected calibration error", error))
    rows += [(f"{name} of training", count) for name, count in figures.get("training", {}).items()]
    return rows


def _pictures(parent: int, pictures: Sequence[str]) -> list[str]:
    against = f", `dvc plots diff update-{parent}`" if parent else ""
    beside = [
        "They lie beside this report where it was made, and are in neither Git nor DVC: not in a pull",
        "request. `renate-stages publish` draws them in any checkout of this update.",
        "",
        *pictures,
        "",
    ]
    return [
        "## Pictures and cost",
        "",
        f"`dvc plots show`{against}; as PNG in this update's MLflow run, under `plots/`. There too, as",
        "`cost.*`: seconds, examples, peak memory, size of the state.",
        "",
        *(beside if pictures else []),
    ]


def _figures(state: State, evaluation: EvaluationParams) -> list[tuple[str, object]]:
    if state.provenance.update not in state.evaluations().matrix(evaluation.metric):
        return []  # retention left no holdout
    summary = state.evaluations().summary(
        state.provenance.update,
        evaluation.metric,
        higher_is_better=evaluation.mode == "max",
    )
    return [
        (f"{evaluation.metric}, {name.replace('_', ' ')}", value)
        for name, value in summary.items()
        if not isinstance(value, dict) and value is not None
    ]


def _lineage(state: State) -> list[tuple[str, object]]:
    made = state.provenance
    return [
        ("update", made.update),
        ("state", f"`{state.identity}`"),
        ("parent's state", f"`{made.parent}`"),
        ("learner", made.learner),
        ("classes", ", ".join(map(str, made.classes)) or "not labels"),
        ("examples in memory", len(state.memory())),
    ]


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    cells = [
        [f"{c:.4f}" if isinstance(c, float) else hide_secrets(str(c)) for c in row] for row in rows
    ]
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---' for _ in head)}|",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
