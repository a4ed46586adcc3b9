"""Learners that train on a pool of old and new examples: Joint, GDumb and Budgeted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from renate_stages.data import ConcatStored, StoredDataset
from renate_stages.data.loading import StepLoader
from renate_stages.data.steps import BalancedRows, Budget, RandomRows, RowSource, Steps
from renate_stages.errors import LabelsNeededError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import one_of, positive
from renate_stages.learners.base.components import Reinitialisation
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.policy import fit_policy, policy_of, restore_policy, select
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.memory import make_policy

BUDGETS = ("compute_matched", "full")
SAMPLINGS = ("uniform", "class_balanced")


class PoolLearner(Learner):
    """Trains on a pool of old and new examples, which are treated alike.

    Args:
        context: The model, functions and settings of the update.
        budget: Length of an epoch: one pass over the pool (`full`), or as many steps as one pass
            over the new data takes (`compute_matched`), so that it costs as much as fine-tuning.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        budget: Literal["compute_matched", "full"] = "full",
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.budget = one_of("budget", budget, BUDGETS)
        self.policy = make_policy("infinite", None, context.generators.numpy("memory"))

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        self._rows: RowSource | None = None
        self.pool = self.make_pool()

    def make_pool(self) -> ConcatStored:
        """Return the examples to train on; here the whole memory and all new data."""
        return ConcatStored([self.memory, self.new])

    def rows(self) -> RowSource:
        """Return an endless source of rows of the pool, to draw a fixed number of steps from."""
        draws = self.context.generators.torch("replay")
        return RandomRows(len(self.pool), self.batch_size, draws)

    @property
    def steps_of_new(self) -> int:
        """The number of steps in one pass over the new data."""
        return -(-len(self.new) // self.batch_size)

    def train_dataloader(self) -> StepLoader:
        if self.budget == "full":
            return self.loader(self.pool)
        self._rows = self._rows or self.rows()
        return self.step_loader(Steps(self.pool), Budget(self._rows, self.steps_of_new))

    @property
    def datasets(self) -> list[StoredDataset]:
        return list(self.pool.parts)

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        candidates = StoredDataset(self.new.store, self.keepable)
        chosen = select(self.policy, self.memory, candidates, self.model, self.context.task_id)
        return ChosenMemory(chosen._replace(added=self.keepable[chosen.added]))

    def position(self) -> dict[str, Any]:
        own = {} if self._rows is None else {"pool": self._rows.state_dict()}
        return {**super().position(), **own}

    def restore_position(self, position: Mapping[str, Any]) -> None:
        super().restore_position(position)
        if "pool" in position:
            self._rows = self.rows()
            self._rows.load_state_dict(position["pool"])

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        return tensors, {**values, "policy": self.policy.state()}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().restore_learner(tensors, values)
        restore_policy(self.policy, values)


class Joint(PoolLearner):
    """Trains a new model on all data of all updates: a costly upper bound for other learners.

    The memory holds all examples of all updates, and with a full budget each update costs more than
    the one before it.

    Args:
        context: The model, functions and settings of the update.
        reset: Whether to start from a newly built model instead of the parent's.
        base: Hyperparameters of `PoolLearner`.
    """

    def __init__(self, context: UpdateContext, reset: bool = True, **base: Any) -> None:
        super().__init__(context, **base)
        if reset:
            self.components.append(Reinitialisation())


class MemoryPool(PoolLearner):
    """Adds new examples to a bounded memory before training, and trains on this memory.

    Args:
        context: The model, functions and settings of the update.
        memory_size: Most examples to keep and to train on, >= 1, or their bytes.
        base: Hyperparameters of `PoolLearner`.
    """

    memory_policy: ClassVar[str]  # chooses the examples

    def __init__(self, context: UpdateContext, memory_size: int | str = 1000, **base: Any) -> None:
        super().__init__(context, **base)
        self.memory_size = memory_size
        self.policy = policy_of(self.memory_policy, memory_size, context)

    def make_pool(self) -> ConcatStored:
        fit_policy(self.policy, self.memory_size, self.memory, self.new)
        self._chosen = super().choose_memory()
        kept, added = self._chosen.selection
        memory, new = self.memory, self.new
        return ConcatStored(
            [
                StoredDataset(memory.store, kept, *self.context.functions.memory_transforms),
                StoredDataset(new.store, added, new.transform, new.target_transform),
            ]
        )

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        return self._chosen


class GDumb(MemoryPool):
    """GDumb: trains a new model on a class-balanced memory and nothing else.

    Prabhu et al., "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV
    2020, Algorithms 1 and 2: the greedy sampler first adds new data to the memory, then a newly
    built model is trained on the memory.

    Args:
        context: The model, functions and settings of the update.
        base: Hyperparameters of `MemoryPool`.
    """

    memory_policy = "greedy"

    def __init__(self, context: UpdateContext, **base: Any) -> None:
        super().__init__(context, **base)
        self.components.append(Reinitialisation())


class BudgetedReplay(PoolLearner):
    """Samples from all data, which is kept on disk, for a fixed number of steps.

    Prabhu et al., "Computationally Budgeted Continual Learning: What Does Matter?", CVPR 2023: if
    storage is cheap and compute is not, this simple baseline beats the others at equal compute. A
    step takes as many examples as in ER, `batch_size + memory_batch_size`, drawn from the pool of
    new and old examples. An epoch has as many steps as one pass over the new data.

    Args:
        context: The model, functions and settings of the update.
        memory_batch_size: Examples per step in addition to `batch_size`, >= 1.
        sampling: `uniform` over all examples, or `class_balanced`: every class is equally likely.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        memory_batch_size: int = 32,
        sampling: Literal["uniform", "class_balanced"] = "uniform",
        **base: Any,
    ) -> None:
        base["budget"] = "compute_matched"
        super().__init__(context, **base)
        self.memory_batch_size = positive("memory_batch_size", memory_batch_size)
        self.sampling = one_of("sampling", sampling, SAMPLINGS)

    def rows(self) -> RowSource:
        size = self.batch_size + self.memory_batch_size
        draws = self.context.generators.torch("replay")
        if self.sampling == "uniform":
            return RandomRows(len(self.pool), size, draws)
        labels = self.pool.labels()
        if labels is None:
            raise LabelsNeededError("sampling: class_balanced")
        return BalancedRows(labels, size, draws)
