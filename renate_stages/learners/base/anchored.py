"""Penalties on changes of weights from the values that they had earlier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent


class AnchoredPenalty(LossComponent):
    """Penalizes changes of trained weights from an anchor.

        sum over weights of importance (theta - theta*)^2

    Here the anchor theta* is the weights at the start of the update, and each importance is 1.
    """

    replays = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.trained: list[tuple[str, nn.Parameter]] = []

    def start_update(self, learner: Learner) -> None:
        parameters = learner.model.named_parameters()
        self.trained = [(name, each) for name, each in parameters if each.requires_grad]
        for name, parameter in self.trained:
            self.register_buffer(key("anchor", name), parameter.detach().clone())

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        terms = [
            (self.importance(name) * (parameter - self.anchor(name)) ** 2).sum()
            for name, parameter in self.trained
        ]
        return torch.stack(terms).sum()

    def anchor(self, name: str) -> Tensor:
        """Return theta* of a parameter."""
        return self.get_buffer(key("anchor", name))

    def importance(self, name: str) -> Tensor | float:
        """Return the importance of each weight of a parameter."""
        return 1.0


class ImportancePenalty(AnchoredPenalty):
    """An anchored penalty in proportion to importance, which adds up over updates.

    Subclasses add to `importance` in `end_training`, and then call `move_anchor`. Both are kept in
    the state: two numbers for each weight.
    """

    survives = True
    kept_as: ClassVar[str] = "importance"  # what the buffers of the importance are called

    def start_update(self, learner: Learner) -> None:
        super().start_update(learner)
        self._learner, self._say = type(learner).__name__, learner.context.say
        for name, parameter in self.trained:
            zeros = torch.zeros_like(parameter, dtype=torch.float32)
            self.register_buffer(key(self.kept_as, name), zeros)

    def restore(self, left: Mapping[str, Tensor]) -> bool:
        """Restore importance and anchor of each parameter whose shape is unchanged."""
        unknown = []
        for name, parameter in self.trained:
            keys = key(self.kept_as, name), key("anchor", name)
            if all(each in left and left[each].shape == parameter.shape for each in keys):
                for each in keys:
                    self.get_buffer(each).copy_(left[each])
            else:
                unknown.append(name)
        if unknown and len(unknown) < len(self.trained):
            self._say(
                f"{self._learner} does not penalize changes of parameters that are new or reshaped: "
                f"{', '.join(unknown)}"
            )
        return len(unknown) < len(self.trained)

    def importance(self, name: str) -> Tensor:
        return self.get_buffer(key(self.kept_as, name))

    def move_anchor(self) -> None:
        """Let the current weights be the anchor."""
        for name, parameter in self.trained:
            self.anchor(name).copy_(parameter.detach())


def key(kind: str, name: str) -> str:
    """Return the name of the buffer of a parameter, which must not contain a dot."""
    return f"{kind}/{name}".replace(".", "/")
