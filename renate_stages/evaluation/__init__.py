"""Evaluation: histories and their figures (no torch here); `evaluator` measures, `plots` draws."""

from renate_stages.evaluation.history import Evaluation, EvaluationHistory
from renate_stages.evaluation.metrics import (
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    micro_average,
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
    "micro_average",
    "worst_holdout",
]
