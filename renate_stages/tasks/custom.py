"""A task that only the user's loss and metrics know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from renate_stages.tasks.regression import squared_distance
from renate_stages.tasks.task import Task


class Custom(Task):
    """Targets and outputs of any structure. `loss_fn` must be defined.

    Learners that compare outputs, such as LwF, need outputs that are one tensor; they use the
    squared distance. Importance of weights is computed from the user's loss.
    """

    name = "custom"
    has_distribution = False
    needs_loss_fn = True

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        """Accept anything: only the user's functions know what is right."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        raise NotImplementedError("task custom has no default loss")

    def distillation(
        self, outputs: Tensor, taught: Tensor, temperature: float, classes: Sequence[int] = ()
    ) -> Tensor:
        """Return the mean squared distance of the outputs."""
        return squared_distance(outputs, taught.float())
