"""`CandidateReplay`: experience replay of the best among random candidates, the base of MIR and ASER."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data import Batch
from renate_stages.data.ranks import ranks
from renate_stages.learners.base.arguments import positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.er import ExperienceReplay


class CandidateReplay(ExperienceReplay):
    """ER that draws candidates from memory at random, and replays those with the largest values.

    A subclass defines the value of a candidate. Values are computed in evaluation mode and full
    precision, so that they change neither batch statistics nor random numbers, and do not depend on
    which examples share a forward pass. Of equal values, the candidate that was drawn first is
    replayed. If several processes share a step, they choose together.

    Args:
        context: The model, functions and settings of the update.
        candidate_factor: Candidates per replayed example, >= 1. With 1, or as long as the memory
            holds at most `memory_batch_size` examples, it is ER.
        base: Hyperparameters of `ExperienceReplay`.
    """

    def __init__(self, context: UpdateContext, candidate_factor: int = 5, **base: Any) -> None:
        super().__init__(context, **base)
        self.candidate_factor = positive("candidate_factor", candidate_factor)

    def values_of(self, new: Batch, draws: Sequence[Batch]) -> list[Tensor]:
        """Return the value of each candidate of each draw, `(N,)` on the CPU.

        Every process returns the same values, those of all N candidates of all processes.

        Args:
            new: The new batch.
            draws: The draws of a step.
        """
        raise NotImplementedError

    @property
    def rows_per_draw(self) -> int:
        return self.memory_batch_size * self.candidate_factor

    def pass_all(
        self, new: Batch, drawn: tuple[Batch, ...]
    ) -> tuple[ForwardResult, list[ForwardResult]]:
        if drawn and len(drawn[0].all_rows) > self.memory_batch_size:  # all have equally many
            with self.evaluating():
                values = self.values_of(new, drawn)
            pairs = zip(drawn, values, strict=True)
            drawn = tuple(_best(*pair, self.memory_batch_size) for pair in pairs)
        return super().pass_all(new, drawn)


def _best(candidates: Batch, values: Tensor, count: int) -> Batch:
    """Return the `count` candidates with the largest values, or this process's share of them."""
    chosen = values.argsort(descending=True, stable=True)[:count].sort().values.numpy()
    first, last = ranks().bounds(len(candidates.all_rows))
    own = chosen[(chosen >= first) & (chosen < last)] - first
    places = torch.from_numpy(own if len(own) else np.zeros(1, np.int64))  # or a placeholder
    kept = candidates.mapped(lambda each: each[places.to(each.device)])
    whole = None if candidates.whole is None else candidates.whole[chosen]
    return kept.of_rows(candidates.rows[own], whole)
