"""MAS, SI and L2 Init as plain PyTorch loops, from their papers' equations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from plain_methods import Method, copies, squared_change
from torch import Tensor

MAS_EXAMPLES = 1000  # of a task, from which importance is computed
DAMPING = 1e-3  # xi of SI


class MAS(Method):
    """l + lambda sum of Omega (theta - theta*)^2 (Aljundi et al. 2018, eq. 4); alpha is lambda."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.omega, self.anchors = [torch.zeros_like(w) for w in self.weights], copies(self.weights)

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().loss(inputs, labels)
        penalty = squared_change(self.omega, self.weights, self.anchors)
        return loss + self.recipe.alpha * penalty, logits

    def end_task(self, inputs: Tensor, labels: Tensor) -> None:
        """Add the mean over examples of |d ||f(x)||^2 / d theta| (eq. 2 and 3), one by one."""
        rows = torch.randperm(len(inputs), generator=self.generator)[:MAS_EXAMPLES]
        for row in rows.tolist():
            outputs = self.model(inputs[row : row + 1])
            gradients = torch.autograd.grad(outputs.square().sum(), self.weights)
            for omega, gradient in zip(self.omega, gradients, strict=True):
                omega += gradient.abs() / len(rows)
        self.anchors = copies(self.weights)


class SI(Method):
    """l + c sum of Omega (theta - theta*)^2 (Zenke et al. 2017, eq. 4); alpha is c.

    Omega sums omega / (change^2 + xi) over tasks, where omega is the sum over steps of -g times the
    change of the step, and g the gradient of l alone (eq. 3 and 5); a negative omega counts as 0.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.omega, self.anchors = [torch.zeros_like(w) for w in self.weights], copies(self.weights)

    def start_task(self, inputs: Tensor, labels: Tensor) -> Tensor:
        self.path = [torch.zeros_like(w) for w in self.weights]
        self.latest = copies(self.weights)
        return super().start_task(inputs, labels)

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(inputs)
        loss = F.cross_entropy(logits, labels)
        self.gradients = torch.autograd.grad(loss, self.weights, retain_graph=True)
        penalty = squared_change(self.omega, self.weights, self.anchors)
        return loss + self.recipe.alpha * penalty, logits

    def after_step(self) -> None:
        now = copies(self.weights)
        for path, g, w, before in zip(self.path, self.gradients, now, self.latest, strict=True):
            path -= g * (w - before)
        self.latest = now

    def end_task(self, inputs: Tensor, labels: Tensor) -> None:
        for omega, path, w, start in zip(
            self.omega, self.path, copies(self.weights), self.anchors, strict=True
        ):
            omega += path.clamp(min=0) / ((w - start) ** 2 + DAMPING)
        self.anchors = copies(self.weights)


class L2Init(Method):
    """l + lambda ||theta - theta_0||^2 (Kumar et al. 2023, eq. 1); alpha is lambda."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.initial = copies(self.weights)

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().loss(inputs, labels)
        ones = [1.0] * len(self.initial)
        return loss + self.recipe.alpha * squared_change(ones, self.weights, self.initial), logits
