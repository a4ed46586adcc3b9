"""Output heads: one per task, random features, nearest mean."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import torch
from torch import Tensor, nn

from renate_stages.errors import UnknownTaskError
from renate_stages.models.growth import grow_layer


class PerTaskHeads(nn.Module):
    """One linear layer per task id; starts without any.

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

    def grow_outputs(self, number: int) -> None:
        """Give all heads, also later ones, more outputs."""
        for head in self.by_task.values():
            grow_layer(head, number)
        self.num_outputs = number

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


class RandomFeatureHead(nn.Module):
    """A linear layer on random features, `linear(relu(f @ projection))`.

    The projection is a buffer in the state dict; it is drawn once and never trained. McDonnell et
    al., "RanPAC: Random Projections and Pre-trained Models for Continual Learning", NeurIPS 2023,
    draw it from N(0, 1). Here it is drawn from N(0, 2 / M), so that the random features have on
    average the length of the features, and a learner that trains the head later can use the same
    learning rate.

    Args:
        num_features: Width F of the features.
        num_random_features: Number M of random features.
        num_outputs: K.
        generator: Draws the projection; None uses the global generator, like other layers.
    """

    projection: Tensor  # (F, M)

    def __init__(
        self,
        num_features: int,
        num_random_features: int,
        num_outputs: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        drawn = torch.randn(num_features, num_random_features, generator=generator)
        self.register_buffer("projection", drawn * (2 / num_random_features) ** 0.5)
        self.linear = nn.Linear(num_random_features, num_outputs)

    @property
    def num_outputs(self) -> int:
        """K."""
        return self.linear.out_features

    def grow_outputs(self, number: int) -> None:
        """Give the linear layer more outputs."""
        grow_layer(self.linear, number)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (B, K) for features (B, F)."""
        return self.linear(torch.relu(features @ self.projection))


class NearestMeanHead(nn.Module):
    """A linear layer in training mode, and a nearest-mean classifier in evaluation mode.

    Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017, Algorithm
    1, on features of length 1. Before means are set, and while `uses_means` is false, it is a linear
    layer in both modes.

    Args:
        num_features: Width F of the features.
        num_outputs: K.
    """

    means: Tensor  # (K, F), each of length 1
    known: Tensor  # (K,) bool, the classes that have a mean

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_outputs)
        self.register_buffer("means", torch.zeros(num_outputs, num_features))
        self.register_buffer("known", torch.zeros(num_outputs, dtype=torch.bool))
        self.uses_means = True

    @property
    def num_outputs(self) -> int:
        """K."""
        return self.linear.out_features

    def grow_outputs(self, number: int) -> None:
        """Give the head more outputs; the new classes have no mean yet."""
        more = number - self.num_outputs
        grow_layer(self.linear, number)
        self.means = torch.cat([self.means, self.means.new_zeros(more, self.means.shape[1])])
        self.known = torch.cat([self.known, self.known.new_zeros(more)])

    @torch.no_grad()
    def take_means(self, means: Mapping[int, Tensor]) -> None:
        """Set the mean features (F,) of classes; the other classes have no mean."""
        self.known.zero_()
        for label, mean in means.items():
            self.means[label] = mean
            self.known[label] = True
        self.uses_means = True

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (B, K) for features (B, F).

        As a nearest-mean classifier, the output is the negative distance to a class's mean, in
        [-2, 0], and -4 for classes without a mean.
        """
        if self.training or not self.uses_means:
            return self.linear(features)
        unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)
        distances = torch.cdist(unit, self.means)
        by_means = torch.where(self.known, -distances, -4.0)
        return torch.where(self.known.any(), by_means, self.linear(features))


def _module_name(task_id: str) -> str:
    # Unique for each task id. A module's name must not contain a dot, be empty, or be the name of
    # an attribute such as "keys".
    return "task_" + quote(task_id, safe="").replace(".", "%2E")
