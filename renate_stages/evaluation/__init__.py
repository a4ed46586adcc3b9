"""Evaluation: metrics, histories and figures without torch; `evaluator` measures models."""

from renate_stages.evaluation.history import Evaluation, EvaluationHistory
from renate_stages.evaluation.metrics import (
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    worst_holdout,
)

__all__ = [
    "Evaluation",
    "EvaluationHistory",
    "average",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "intransigence",
    "worst_holdout",
]
