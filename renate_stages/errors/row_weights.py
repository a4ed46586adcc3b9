"""Errors of row weights: what cannot weight rows, and weights that count no row."""

from __future__ import annotations

from collections.abc import Iterable

from renate_stages.errors.base import RenateStagesError

_WITHOUT = "or remove the weights from the data (docs/data.md, Row weights)."


class NoRowWeighsError(RenateStagesError):
    """All rows to train on have the weight 0."""

    def __init__(self, where: str, rows: int) -> None:
        super().__init__(
            f"{where}: the weights of all {rows} rows are 0, so training would learn nothing.\n"
            f"To fix this: give some rows a weight above 0, {_WITHOUT}"
        )


class UnweightedLearnerError(RenateStagesError):
    """Rows have weights, and a learner would ignore them."""

    def __init__(self, learners: Iterable[str], where: str = "params.yaml, learner") -> None:
        super().__init__(
            f"{where}: {', '.join(learners)} would ignore the weights of rows.\n"
            "To fix this: choose a learner that weights rows, such as ER, DER++ or FineTuning "
            f"(docs/learners.md lists the others), {_WITHOUT}"
        )


class UnweightedLossError(RenateStagesError):
    """Rows have weights, and the loss of the user is not one value for each row."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"renate_config.py, loss_fn: rows have weights, and {problem}.\n"
            'To fix this: return one loss per row, such as with reduction="none", ' + _WITHOUT
        )
