"""Joint training: everything ever seen, kept and trained on."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from renate_stages.data import ConcatStored, StoredDataset
from renate_stages.learners.base import Learner, UpdateContext
from renate_stages.memory import make_policy


class Joint(Learner):
    """Trains a new model on all data of all updates: the costly bound that others approach.

    An epoch is one pass over all data, so an update costs more with each one before it, and the
    memory holds everything ever seen.

    Args:
        context: What the update gives.
        reset: Whether to start from a newly built model rather than the parent's.
        base: Hyperparameters of `Learner`.
    """

    def __init__(self, context: UpdateContext, reset: bool = True, **base: Any) -> None:
        super().__init__(context, **base)
        self.reset = reset
        self.policy = make_policy("infinite", None, context.generators.numpy("memory"))

    def start_update(self, new: StoredDataset, memory: StoredDataset) -> None:
        super().start_update(new, memory)
        if self.reset:
            self.model.load_state_dict(dict(self.context.untrained))

    def train_dataloader(self) -> DataLoader:
        return self.loader(ConcatStored([self.memory, self.new]))
