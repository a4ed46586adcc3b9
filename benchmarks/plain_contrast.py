"""SCR as a plain PyTorch loop, and the random views of both sides."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from plain_methods import NUM_CLASSES, Method
from torch import Tensor, nn

TEMPERATURE, PROJECTION = 0.07, 128
SHIFT = 2  # pixels at most, in each direction


def shifted(images: Tensor) -> Tensor:
    """Return images `(B, 28, 28)` of any dtype, each moved by up to two pixels, with black edges."""
    moves = torch.randint(0, 2 * SHIFT + 1, (2, len(images)))
    padded = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT))
    rows = moves[0, :, None, None] + torch.arange(28)[None, :, None]
    columns = moves[1, :, None, None] + torch.arange(28)[None, None, :]
    return padded[torch.arange(len(images))[:, None, None], rows, columns]


class SCR(Method):
    """Contrasts two views of each example by label, and predicts the nearest class mean.

    Mai et al. 2021, eq. 1; the means are of the normalized features of the memory's examples.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.projection = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, PROJECTION))

    @property
    def weights(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.projection.parameters()]

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        old_inputs, old_labels, _ = self.draw()
        plain = torch.cat([inputs, old_inputs]).reshape(-1, 28, 28)
        views = torch.cat([shifted(plain), shifted(plain)]).flatten(1)
        z = F.normalize(self.projection(self.features(views)), dim=1)
        of_views = torch.cat([labels, old_labels]).repeat(2)
        others = ~torch.eye(len(z), dtype=torch.bool)
        similar = (z @ z.T / TEMPERATURE)[others].reshape(len(z), -1)
        same = (of_views[:, None] == of_views)[others].reshape(len(z), -1)
        loss = -(similar.log_softmax(1) * same).sum(1) / same.sum(1)
        return loss.mean(), torch.zeros(len(labels), NUM_CLASSES)

    def __call__(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            kept = F.normalize(self.features(self.memory.inputs[: len(self.memory)]), dim=1)
            labels = self.memory.labels[: len(self.memory)]
            scores = torch.full((len(inputs), NUM_CLASSES), -torch.inf)
            for label in labels.unique().tolist():
                mean = F.normalize(kept[labels == label].mean(0), dim=0)
                scores[:, label] = F.normalize(self.features(inputs), dim=1) @ mean
        return scores
