"""Accumulate mean losses over the examples of an epoch."""

from __future__ import annotations

import torch
from torch import Tensor


class EpochLosses:
    """Collects losses on their device and sums 512 at once, because reading each one would block."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[Tensor, int]]] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, name: str, mean: Tensor, examples: int) -> None:
        """Add a step's mean loss over a number of examples."""
        waiting = self._waiting.setdefault(name, [])
        waiting.append((mean.detach(), examples))
        if len(waiting) == 512:
            self._sum_up(name)

    def _sum_up(self, name: str) -> None:
        means, examples = zip(*self._waiting.pop(name), strict=True)
        weights = torch.tensor(examples, dtype=torch.float64)
        loss, count = self._sums.get(name, (0.0, 0))
        loss += float(torch.stack(means).double().cpu() @ weights)
        self._sums[name] = loss, count + sum(examples)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over all its examples."""
        for name in list(self._waiting):
            self._sum_up(name)
        return {name: loss / count for name, (loss, count) in self._sums.items()}
