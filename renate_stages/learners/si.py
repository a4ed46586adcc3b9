"""Synaptic intelligence (Zenke, Poole & Ganguli, "Continual Learning Through Synaptic Intelligence",
ICML 2017)."""

from __future__ import annotations

from typing import Any

import torch

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.anchored import ImportancePenalty, key
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext


class PathIntegral(ImportancePenalty):
    """Penalizes changes of weights whose changes have lowered the loss.

        sum over weights of Omega (theta - theta*)^2                               (eq. 4)
        omega = sum over steps of -g (theta' - theta)                              (eq. 3)
        Omega <- Omega + max(omega, 0) / ((theta - theta_start)^2 + damping)       (eq. 5)

    g is the gradient of the loss without this term, as in the paper. With gradient clipping it is
    the clipped gradient of the whole loss. Negative omega, from steps that raised the loss, count as
    0, because a negative importance would reward changes.

    Args:
        weight: Factor of the term, >= 0.
        damping: xi > 0, which bounds the importance of weights that hardly move.
    """

    follows_steps = True

    def __init__(self, weight: float = 1.0, damping: float = 1e-3) -> None:
        super().__init__(weight)
        self.damping = damping

    def start_update(self, learner: Learner) -> None:
        super().start_update(learner)
        self._is_clipped = learner.context.trainer.gradient_clip_val is not None
        for name, parameter in self.trained:
            weights = parameter.detach()
            self.register_buffer(key("path", name), torch.zeros_like(weights, dtype=torch.float32))
            self.register_buffer(key("latest", name), weights.clone())
            self.register_buffer(key("start", name), weights.clone())

    @torch.no_grad()
    def weights_changed(self, learner: Learner) -> None:
        for name, parameter in self.trained:  # the anchor stays with the parent's weights
            for kind in ("latest", "start"):
                self.get_buffer(key(kind, name)).copy_(parameter)

    @torch.no_grad()
    def after_step(self, learner: Learner) -> None:
        for name, parameter in self.trained:
            latest = self.get_buffer(key("latest", name))
            if parameter.grad is not None:
                gradient = parameter.grad
                if not self._is_clipped:
                    pull = self.importance(name) * (latest - self.anchor(name))
                    gradient = gradient - 2 * self.weight * pull
                self.get_buffer(key("path", name)).sub_(gradient * (parameter - latest))
            latest.copy_(parameter)

    def end_training(self, learner: Learner) -> None:
        for name, parameter in self.trained:
            path = self.get_buffer(key("path", name)).clamp(min=0)
            moved = parameter.detach() - self.get_buffer(key("start", name))
            self.importance(name).add_(path / (moved.square() + self.damping))
            for kind in ("path", "latest", "start"):  # the next update begins with others
                delattr(self, key(kind, name))
        self.move_anchor()


class SI(Learner):
    """SI: fine-tuning with a penalty on changes of weights that lowered the loss in earlier updates.

        L = l(f(x), y) + si_weight * sum of Omega (theta - theta*)^2

    Importance is computed during training, without another pass over data. It stores two numbers per
    weight and no data.

    Args:
        context: The model, functions and settings of the update.
        si_weight: c, >= 0; from 0.01 to 1 in the paper.
        si_damping: xi, > 0; 0.001 and 0.1 in the paper.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        si_weight: float = 0.1,
        si_damping: float = 1e-3,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        if in_range("si_damping", si_damping, 0) == 0:
            raise InvalidHyperparameterError("si_damping", si_damping, "a number > 0")
        self.components.append(PathIntegral(in_range("si_weight", si_weight, 0), si_damping))
