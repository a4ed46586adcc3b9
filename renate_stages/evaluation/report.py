"""What people read of an update, as Markdown: the report and the model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from renate_stages.gate.verdict import section

if TYPE_CHECKING:
    from renate_stages.evaluation.history import EvaluationHistory
    from renate_stages.gate.verdict import Verdict
    from renate_stages.params import EvaluationParams
    from renate_stages.state import State


def update_report(
    state: State,
    evaluation: EvaluationParams,
    search: Mapping[str, Any] | None = None,
    verdict: Verdict | None = None,
) -> str:
    """Return the report of the update that wrote a state, for a pull request to carry.

    Args:
        state: What the update left.
        evaluation: Names the headline metric and which direction is better.
        search: What `tune` says of its search, as in `work/tuning/search.json`.
        verdict: What the gate says.
    """
    made = state.provenance
    figures = _figures(state, evaluation)
    return "\n".join(
        [
            f"# Update {made.update}",
            "",
            _verdict(state.evaluations(), made.update, evaluation.metric),
            "",
            *(section(verdict) if verdict else []),
            f"## {evaluation.metric} on every holdout",
            "",
            *_holdout_table(state.evaluations(), made.update, evaluation.metric),
            "",
            "## Over all updates",
            "",
            *_table(("figure", "value"), figures),
            "",
            *_search(search),
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


def _search(search: Mapping[str, Any] | None) -> list[str]:
    """Say how the hyperparameters were chosen; nothing where they are constants."""
    if not search or not search["searched"]:
        return []
    best, objective = search["best"], search["objective"]
    trials = ", ".join(f"{count} {status}" for status, count in search["trials"].items())
    over = {"union": "all updates'", "new": "this update's", "weighted": "all updates', weighted,"}
    reasons = search["not_repeatable_because"]
    repeatable = "The same inputs give the same search."
    if reasons:
        repeatable = f"The search need not find the same again: {'; '.join(reasons)}."
    rows = [
        ("scheduler", search["scheduler"]),
        ("trials", trials),
        ("epochs of all trials", search["epochs"]),
        ("ended by", search["ended_by"]),
        ("best", f"trial {best['trial']}, after epoch {best['epoch']}"),
        (f"its {objective['metric']} on {over[objective['over']]} validation data", best["value"]),
        *((f"`{name}`", value) for name, value in best["configuration"].items()),
    ]
    history = [f"- {note}" for note in search["history"]] or ["No earlier trials were used."]
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


def _verdict(history: EvaluationHistory, update: int, metric: str) -> str:
    """Say in one sentence what the update did to the parent's figure on the same holdouts."""
    after = history.matrix(metric).get(update, {})
    if update not in after:
        return "This update forgets examples: no new data, no training."
    before = history.matrix(metric, "before").get(update, {})
    new = f"{metric} on the new data {_change(before.get(update), after[update])}"
    old = [holdout for holdout in after if holdout != update]
    if not old:
        return f"First update: {new}."
    mean_before = sum(before[holdout] for holdout in old) / len(old)
    mean_after = sum(after[holdout] for holdout in old) / len(old)
    return f"{new}; on the {len(old)} earlier holdout(s) {_change(mean_before, mean_after)}."


def _change(before: float | None, after: float) -> str:
    return f"{after:.4f}" if before is None else f"{before:.4f} → {after:.4f}"


def _holdout_table(history: EvaluationHistory, update: int, metric: str) -> list[str]:
    before = history.matrix(metric, "before").get(update, {})
    rows = []
    for holdout, after in history.matrix(metric).get(update, {}).items():
        start = before.get(holdout)
        gain = "" if start is None else f"{after - start:+.4f}"
        rows.append((f"update {holdout}", "" if start is None else f"{start:.4f}", after, gain))
    return _table(("holdout of", "parent's model", "new model", "change"), rows)


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
    cells = [[f"{c:.4f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---' for _ in head)}|",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
