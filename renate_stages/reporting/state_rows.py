"""Rows on a state that the report and the model card have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from renate_stages.tasks.labels import shown

if TYPE_CHECKING:
    from renate_stages.params import EvaluationParams
    from renate_stages.state import State

FIGURES = ("figure", "value", "what it is")
MEANINGS = {
    "average": "mean of the values on all holdouts",
    "overall": "on the rows of all holdouts together",
    "worst_holdout": "worst value on a holdout",
    "forgetting": "mean loss on earlier holdouts since their best value",
    "backward_transfer": "mean change on earlier holdouts since their own update",
    "forward_transfer": "mean gain of the parent on new holdouts over an untrained model",
    "prequential": "of the parent's model on the new holdout",
}


def figure_rows(state: State, evaluation: EvaluationParams) -> list[tuple[str, object, str]]:
    """Return the known figures of the headline metric, for a table with the head `FIGURES`."""
    if state.provenance.update not in state.evaluations().matrix(evaluation.metric):
        return []  # retention has removed all holdouts
    summary = state.evaluations().summary(
        state.provenance.update,
        evaluation.metric,
        higher_is_better=evaluation.mode == "max",
    )
    return [
        (f"{evaluation.metric}, {name.replace('_', ' ')}", value, MEANINGS[name])
        for name, value in summary.items()
        if not isinstance(value, dict) and value is not None
    ]


def lineage_rows(state: State) -> list[tuple[str, object]]:
    """Return what a state is and what it was made from, for a table of two columns."""
    made = state.provenance
    return [
        ("update", made.update),
        ("state", f"`{state.identity}`"),
        ("parent's state", f"`{made.parent}`"),
        ("learner", made.learner),
        ("classes", ", ".join(shown(each, made.labels) for each in made.classes) or "not labels"),
        ("examples in memory", len(state.memory())),
    ]
