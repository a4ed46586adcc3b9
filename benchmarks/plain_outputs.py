"""POD-ER and Super-ER, which keep outputs of layers, as plain PyTorch loops."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from plain_methods import NUM_CLASSES, Method, copies
from torch import Tensor

HIDDEN = (2, 4)  # ends of the layers whose outputs are kept: those after each ReLU
WIDTH = 200  # of both together
DECAY, STABLE, PLASTIC = (
    0.99,
    0.7,
    0.9,
)  # of the averaged models, and how likely each follows a step
SHRINK, NOISE = 0.95, 0.001


class PODER(Method):
    """ER + alpha POD: distance of each layer's squared, normalized outputs from those stored.

    Douillard et al. 2020, section 3.1, for outputs without height and width.
    """

    fields = NUM_CLASSES + WIDTH

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        old_inputs, old_labels, stored = self.draw()
        logits, pooled = self.forward(torch.cat([inputs, old_inputs]))
        number = len(labels)
        loss = F.cross_entropy(logits, torch.cat([labels, old_labels]))
        if len(old_labels):
            loss = loss + self.replayed(
                logits[number:], pooled[number:], stored, old_inputs, old_labels
            )
        return loss, torch.cat([logits, pooled], dim=1)[:number]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, and the pooled outputs of both hidden layers side by side."""
        hidden = [self.model[:end](inputs) for end in HIDDEN]
        return self.model(inputs), torch.cat(
            [F.normalize(each**2, dim=1) for each in hidden], dim=1
        )

    def replayed(
        self, logits: Tensor, pooled: Tensor, stored: Tensor, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """Return what the remembered examples add to the loss."""
        return self.recipe.alpha * self.distance(pooled, stored[:, NUM_CLASSES:])

    def distance(self, pooled: Tensor, stored: Tensor) -> Tensor:
        """Return the mean over layers and examples of the distance."""
        layers = zip(pooled.split(WIDTH // 2, dim=1), stored.split(WIDTH // 2, dim=1), strict=True)
        return torch.stack([(now - then).norm(dim=1).mean() for now, then in layers]).mean()


class SuperER(PODER):
    """ER + alpha DER + beta CLS + POD, after shrinking and perturbing the weights of each task.

    CLS is the distance to the logits of that average of the model which gives the true label the
    higher probability (Arani et al. 2022, Algorithm 1).
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stable, self.plastic = (
            copy.deepcopy(self.model).requires_grad_(False) for _ in range(2)
        )
        self.steps = 0

    def start_task(self, inputs: Tensor, labels: Tensor) -> Tensor:
        for weight in self.weights:
            noise = torch.randn(weight.shape, generator=self.generator)
            weight.data = SHRINK * weight.data + NOISE * noise
        return super().start_task(inputs, labels)

    def replayed(
        self, logits: Tensor, pooled: Tensor, stored: Tensor, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        stable, plastic = self.stable(inputs), self.plastic(inputs)
        true = [each.softmax(1).gather(1, labels[:, None]) for each in (stable, plastic)]
        surer = torch.where(true[0] > true[1], stable, plastic)
        return (
            self.recipe.alpha * F.mse_loss(logits, stored[:, :NUM_CLASSES])
            + self.recipe.beta * F.mse_loss(logits, surer)
            + self.distance(pooled, stored[:, NUM_CLASSES:])
        )

    def after_step(self) -> None:
        self.steps += 1
        a = min(1 - 1 / (self.steps + 1), DECAY)
        for average, probability in ((self.stable, STABLE), (self.plastic, PLASTIC)):
            if torch.rand((), generator=self.generator) < probability:
                for mean, now in zip(average.parameters(), copies(self.weights), strict=True):
                    mean.data = a * mean.data + (1 - a) * now
