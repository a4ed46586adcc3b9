"""Linear output heads, one for all tasks or one for each, and the classifier that has them."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError, UnknownTaskError
from renate_stages.models.module import RenateModule

Heads = Literal["shared", "per_task"]


class PerTaskHeads(nn.Module):
    """One linear layer for each task id; starts with none.

    Args:
        num_features: Width F of the features.
        num_outputs: Outputs K of each head.
    """

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.num_features, self.num_outputs = num_features, num_outputs
        self.task_ids: list[str] = []
        self.by_task = nn.ModuleDict()

    def add(self, task_id: str) -> None:
        """Add a new head for a task."""
        self.by_task[_module_name(task_id)] = nn.Linear(self.num_features, self.num_outputs)
        self.task_ids.append(task_id)

    def of(self, task_id: str | None) -> nn.Module:
        """Return the head of a task.

        Raises:
            UnknownTaskError: If the task has no head.
        """
        if task_id is None or task_id not in self.task_ids:
            raise UnknownTaskError(task_id, self.task_ids)
        return self.by_task[_module_name(task_id)]

    def forward(self, features: Tensor, task_id: str | None) -> Tensor:
        """Return a task's outputs (B, K) for features (B, F)."""
        return self.of(task_id)(features)


class FeatureClassifier(RenateModule):
    """`head(features(x))`: the common part of the reference models.

    Args:
        constructor_arguments: See `RenateModule`.
        features: Maps inputs to (B, F) floats; kept as `features`.
        num_features: F.
        num_outputs: K, the number of classes, or of values in a regression.
        heads: `shared`: one linear head for all tasks, task ids are ignored. `per_task`: one for
            each id given to `add_task_params`; every call then has to name a task.
    """

    head: nn.Linear | PerTaskHeads

    def __init__(
        self,
        constructor_arguments: dict[str, Any],
        features: nn.Module,
        num_features: int,
        num_outputs: int,
        heads: Heads,
    ) -> None:
        super().__init__(constructor_arguments)
        name = type(self).__name__
        if heads not in ("shared", "per_task"):
            raise ModelArgumentError(name, "heads", heads, "'shared' or 'per_task'")
        check_positive(name, num_outputs=num_outputs)
        head_type = nn.Linear if heads == "shared" else PerTaskHeads
        self.features = features
        self.head = head_type(num_features, num_outputs)

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        """Return the outputs (B, K), not normalised.

        Raises:
            UnknownTaskError: If heads are per task and this one has none.
        """
        features = self.features(x)  # (B, F)
        if isinstance(self.head, PerTaskHeads):
            return self.head(features, task_id)
        return self.head(features)

    def get_params(self, task_id: str | None = None) -> list[nn.Parameter]:
        """Return the features' parameters and those of the task's head; all for None.

        Raises:
            UnknownTaskError: If heads are per task and this one has none.
        """
        if task_id is None or not isinstance(self.head, PerTaskHeads):
            return list(self.parameters())
        return [*self.features.parameters(), *self.head.of(task_id).parameters()]

    def _add_task_params(self, task_id: str) -> None:
        if isinstance(self.head, PerTaskHeads):
            self.head.add(task_id)


def check_positive(model: str, **arguments: int) -> None:
    """Check that arguments of a model are whole numbers of at least 1.

    Raises:
        ModelArgumentError: If one is not.
    """
    for argument, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise ModelArgumentError(model, argument, value, "a whole number, at least 1")


def _module_name(task_id: str) -> str:
    # A module's name must not hold a dot, be empty, or be an attribute ("keys"). One to one.
    return "task_" + quote(task_id, safe="").replace(".", "%2E")
