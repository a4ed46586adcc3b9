"""Write the report and the model card in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from renate_stages.errors.redaction import hide_secrets
from renate_stages.gate.verdict import section
from renate_stages.reporting.change import verdict
from renate_stages.shift.data_metrics import DataMetrics, ShiftFigures, lines_of
from renate_stages.tasks.labels import shown

if TYPE_CHECKING:
    from renate_stages.evaluation.history import EvaluationHistory
    from renate_stages.gate.figures import Measured
    from renate_stages.gate.verdict import Verdict
    from renate_stages.params import EvaluationParams
    from renate_stages.state import State
    from renate_stages.tuning.outcome import Search

WEAKEST = 5  # number of weakest parts in the report
SHIFTED = 10  # number of columns in the table of shifts
UNKNOWN = "unknown"  # shown for figures that are not finite


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
            *_table(
                ("figure", "value"), [*_figures(state, evaluation), *_training_figures(figures)]
            ),
            "",
            *_plasticity(figures),
            *_pictures(findings.parent, findings.pictures),
            *_data(findings.data),
            *(_search(findings.search) or _hyperparameters(findings.hyperparameters)),
            *_forgotten(made.left, made.kind),
            "## Lineage",
            "",
            *_table(("what", "value"), _lineage(state)),
            "",
            f"To reproduce it, run `git checkout update-{made.update} && dvc pull && dvc repro`.",
            f"To roll back to it, run `git checkout update-{made.update} && dvc checkout`.",
            "",
        ]
    )


def model_card(state: State, evaluation: EvaluationParams, by_name: bool = False) -> str:
    """Return the model card of an exported model.

    Args:
        state: The update's state.
        evaluation: Parameters with the headline metric.
        by_name: Whether `load_model` is needed: `params.yaml` names the model, or it has more outputs
            or rows than `model_fn` builds.
    """
    code = [
        "from renate_config import model_fn",
        "",
        'model = model_fn(model_state_url="model.ckpt").eval()',
    ]
    if by_name:
        code = ["from renate_stages import load_model", "", 'model = load_model(".")']
    return "\n".join(
        [
            f"# Model of update {state.provenance.update}",
            "",
            "The weights are in `model.safetensors` (constructor arguments in `model.json`), and in",
            "torch's format in `model.ckpt`. Load them with the functions in this folder:",
            "",
            "```python",
            *code,
            "```",
            "",
            *_table(("what", "value"), [*_lineage(state), *_figures(state, evaluation)]),
            "",
        ]
    )


def _data(data: DataMetrics) -> list[str]:
    """Return the section on the new data and its shift from the parent's."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    rows = [
        (name, split.rows, len(split.classes) or "no labels")
        for name, split in splits.items()
        if split is not None
    ]
    if not rows:
        return []
    lines = ["## Data", "", *_table(("split", "examples", "classes"), rows), ""]
    rejected = {} if data.rejected is None else data.rejected.model_dump()
    if notes := lines_of(rejected, data.preprocessing):
        lines += [*(f"- {note}" for note in notes), ""]
    if data.shift is not None and data.shift.tests:
        tests = [
            (
                name,
                UNKNOWN if (p := each.corrected_p_value) is None else f"{p:.2g}",
                UNKNOWN if each.effect_size is None else each.effect_size,
            )
            for name, each in data.shift.tests.items()
        ]
        lines += [
            f"{data.shift.alarms} of {len(tests)} tests found a shift from the parent's data.",
            "",
            *_table(("test", "corrected p-value", "effect size"), tests),
            "",
        ]
    return lines + ([] if data.shift is None else [*_columns(data.shift), *_estimate(data.shift)])


def _columns(shift: ShiftFigures) -> list[str]:
    """Return a table of the named columns with the largest stability index."""
    if not shift.columns:
        return []
    order = sorted(shift.columns.items(), key=lambda each: -(each[1].psi or 0))
    rows = [
        (
            f"`{name}`",
            *(UNKNOWN if value is None else value for value in (each.psi, each.distance)),
            UNKNOWN if each.p_value is None else f"{each.p_value:.2g}",
            UNKNOWN if each.missing_change is None else f"{each.missing_change:+.1%}",
        )
        for name, each in order[:SHIFTED]
    ]
    head = ("column", "PSI", "distance", "p-value", "missing values")
    shown = "" if len(order) <= SHIFTED else f" ({SHIFTED} of {len(order)})"
    return [
        f"Shift of columns{shown}, the largest stability index first:",
        "",
        *_table(head, rows),
        "",
    ]


def _estimate(shift: ShiftFigures) -> list[str]:
    """Return a sentence on the estimated accuracy on rows without labels."""
    estimate = shift.estimated_performance
    if estimate is None or estimate.accuracy is None:
        return []
    error = (
        "" if estimate.error is None else f", off by at most {estimate.error:.3f} on past holdouts"
    )
    sentence = (
        f"{estimate.rows} rows have no labels. The accuracy of the parent's model on them is "
        f"estimated as {estimate.accuracy:.3f} from its confidence{error}."
    )
    return [sentence, ""]


def _hyperparameters(values: Mapping[str, Any]) -> list[str]:
    rows = [(f"`{name}`", value) for name, value in sorted(values.items())]
    return ["## Hyperparameters", "", *_table(("name", "value"), rows), ""] if rows else []


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
    return ["## Search", "", *_table(("what", "value"), rows), "", *history, "", repeatable, ""]


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
    return [*_table(head, rows), *note]


def _weakest(figures: Mapping[str, Any]) -> list[str]:
    """Return the section on the classes and slices with the lowest accuracy."""
    parts = [(f"class {label}", value) for label, value in figures.get("classes", {}).items()]
    for name, values in figures.get("slices", {}).items():
        parts += [(f"{name} {value}", accuracy) for value, accuracy in values.items()]
    if not parts:
        return []
    lowest = sorted(parts, key=lambda part: part[1])[:WEAKEST]  # stable, so ties keep their order
    return ["## Weakest parts", "", *_table(("part of all holdouts", "accuracy"), lowest), ""]


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
    table = _table(("figure", "before training", "after training"), rows)
    return ["## Plasticity", "", *table, ""] if rows else []


def _training_figures(figures: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return calibration and training counts; not time and memory, which vary between runs."""
    rows: list[tuple[str, object]] = []
    error = (figures.get("calibration") or {}).get("error")
    if error is not None:
        rows.append(("expected calibration error", error))
    rows += [(f"{name} of training", count) for name, count in figures.get("training", {}).items()]
    return rows


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


def _figures(state: State, evaluation: EvaluationParams) -> list[tuple[str, object]]:
    if state.provenance.update not in state.evaluations().matrix(evaluation.metric):
        return []  # retention has removed all holdouts
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
        ("classes", ", ".join(shown(each, made.labels) for each in made.classes) or "not labels"),
        ("examples in memory", len(state.memory())),
    ]


def _cell(content: object) -> str:
    return str(content).replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    cells = [
        [f"{c:.4f}" if isinstance(c, float) else hide_secrets(_cell(c)) for c in row]
        for row in rows
    ]
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---' for _ in head)}|",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
