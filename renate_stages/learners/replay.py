"""Replay: learning from new and remembered examples together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from renate_stages.data import ReplayBatches, StoredDataset, concatenate
from renate_stages.learners.base import Batch, Learner, UpdateContext, positive
from renate_stages.memory import Selection, make_policy, rows_of_size, size_in_bytes


class ReplayLearner(Learner):
    """Keeps a bounded memory of past examples and draws replay batches from it.

    Args:
        context: What the update gives.
        memory_size: Most examples to keep, >= 1, or their bytes, such as "20GB".
        memory_batch_size: Replayed examples per step, >= 1.
        memory_policy: Which examples stay, a name in `memory.selection.POLICIES`.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        memory_size: int | str = 1000,
        memory_batch_size: int = 32,
        memory_policy: str = "reservoir",
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.memory_batch_size = positive("memory_batch_size", memory_batch_size)
        self.memory_size = memory_size
        rows = 1  # of a size in bytes it is known when there are examples
        if isinstance(memory_size, str):
            size_in_bytes(memory_size)  # a wrong one is refused now
        else:
            rows = positive("memory_size", memory_size)
        self.policy = make_policy(memory_policy, rows, context.generators.numpy("memory"))

    def start_update(self, new: StoredDataset, memory: StoredDataset) -> None:
        super().start_update(new, memory)
        self._replay = (
            ReplayBatches(memory, self.memory_batch_size, self.context.generators.torch("replay"))
            if len(memory)
            else None
        )

    def choose_memory(self, old: StoredDataset, new: StoredDataset) -> Selection:
        if self.policy is not None and self.policy.size is not None:
            rows, nbytes = len(old) + len(new), old.nbytes + new.nbytes
            self.policy.size = rows_of_size(self.memory_size, nbytes, rows)
        return super().choose_memory(old, new)

    def position(self) -> dict[str, Any]:
        own = {} if self._replay is None else {"replay": self._replay.sampler.state_dict()}
        return {**super().position(), **own}

    def take_position(self, position: Mapping[str, Any]) -> None:
        super().take_position(position)
        if self._replay is not None:
            self._replay.sampler.load_state_dict(position["replay"])

    @property
    def remembers(self) -> bool:
        """Whether there is anything to replay: the memory of a first update is empty."""
        return self._replay is not None

    def draw(self) -> Batch:
        """Return the next replay batch on the model's device."""
        assert self._replay is not None
        return self.transfer_batch_to_device(next(self._replay), self.device, 0)


class ExperienceReplay(ReplayLearner):
    """ER: each step takes new and remembered examples as one batch.

        L = mean of l(f(x), y) over the union of the new batch and the memory's  (Algorithm 1)

    Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", arXiv:1902.10486, 2019.
    With an empty memory a step is one of fine-tuning.
    """

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(concatenate([batch, self.draw()]) if self.remembers else batch)
