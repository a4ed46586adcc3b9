"""Exponential moving averages of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from renate_stages.models import RenateModule


class _Averaged(AveragedModel):
    """An averaged model that stays in evaluation mode, because it is never trained."""

    def train(self, mode: bool = True) -> _Averaged:
        return super().train(False)


def averaged_copy(model: RenateModule, decay: float) -> AveragedModel:
    """Return a moving average of a model; call `update_parameters(model)` on it after each step.

        ema <- a ema + (1 - a) model,   a = min(1 - 1 / (n + 1), decay) at the n-th step, from 1

    The rule of Arani et al., "Learning Fast, Learning Slow", ICLR 2022, Algorithm 1. Float buffers,
    such as running statistics, are averaged too; other buffers are copied.

    Args:
        model: The model; the average starts with its weights.
        decay: The largest a, in [0, 1).
    """

    def average(averages: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        weight = 1 - min(1 - 1 / (int(steps) + 1), decay)
        floats = [(a, c) for a, c in zip(averages, current, strict=True) if a.is_floating_point()]
        if floats:  # torch passes tensors grouped by dtype; a group may have no floats
            torch._foreach_lerp_([a for a, _ in floats], [c for _, c in floats], weight)
        for target, source in zip(averages, current, strict=True):
            if not target.is_floating_point():
                target.copy_(source)

    copy = _Averaged(model, multi_avg_fn=average, use_buffers=True)
    copy.n_averaged += 1  # counts the initial weights as the first value
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    return copy.eval()
