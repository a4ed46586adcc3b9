"""Repeated distillation (Zhang et al., "Class-incremental Learning via Deep Model Consolidation", WACV
2020)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from renate_stages.data import StepBatch, StoredDataset
from renate_stages.data.loading import StepLoader
from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.averaging import averaged_copy
from renate_stages.learners.base.components import distance_to_kept
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.frozen_copy import FrozenCopy
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.scratch import MemoryPool
from renate_stages.models import RenateModule
from renate_stages.tasks.task import IGNORED


class RepeatedDistillation(MemoryPool):
    """RD: trains an expert on the new data, then distils parent and expert into a new model.

        1. expert:         L = l(e(x), y)                          on the new examples
        2. consolidation:  L = 1/2 mean over classes of (f(x) - (t - mean of t))^2    (eqs. 3 and 4)

    The second phase trains on the memory, which new examples have entered by then; t are the logits of
    the parent for an example of an earlier update, and those of the expert for a new one. The paper has
    unlabelled auxiliary data instead, and for each example combines the parent's logits of old classes
    and the expert's of new ones; this is the variant of awslabs/Renate, which needs no further data.
    Expert and consolidated model start from the weights of a newly built model, and each phase has its
    own optimizer and learning rate schedule. Where a shift of all outputs matters, as in a regression,
    t takes the place of t - mean of t.

    Only the second phase's epochs count for `trainer.keep` and `trainer.patience`; until it begins, the
    update would serve the parent's model, and curves show the expert. If no earlier example is stored,
    there is nothing to consolidate: all epochs train the model on the new data.

    Args:
        context: The model, functions and settings of the update.
        expert_share: Share in (0, 1) of `trainer.max_epochs` for the expert, rounded to whole epochs, with
            at least one for each phase.
        base: Hyperparameters of `MemoryPool`; `replacement_rate` must be 0.

    Raises:
        InvalidHyperparameterError: If `replacement_rate` is not 0.
    """

    memory_policy = "reservoir"
    min_epochs = 2
    continues_training = False
    weights_rows = True  # the expert's loss does; the distillation of the second phase does not

    def __init__(self, context: UpdateContext, expert_share: float = 0.5, **base: Any) -> None:
        super().__init__(context, **base)
        if in_range("expert_share", expert_share, 0, 1, below=True) == 0:
            raise InvalidHyperparameterError("expert_share", expert_share, "a number in (0, 1)")
        if base.get("replacement_rate"):
            allowed = "0 with RD, which trains two models"
            raise InvalidHyperparameterError("replacement_rate", base["replacement_rate"], allowed)
        epochs = context.trainer.max_epochs or self.min_epochs
        self.expert_epochs = min(max(1, round(expert_share * epochs)), max(1, epochs - 1))
        self.expert: nn.Module | None = (
            None  # trained in phase 1, then a frozen copy; None: no phases
        )
        self.teacher: FrozenCopy | None = None
        self._epochs = 0  # trained so far
        self._consolidates = False

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        start = self.context.start
        if start.has_parent and not len(memory):
            self.context.say("RD has no stored examples to consolidate: it fine-tunes the model")
        if start.has_parent and len(memory):
            self.teacher = FrozenCopy(self.model)
            self.expert = copy.deepcopy(self.model)
            self.expert.load_state_dict(dict(start.untrained))

    # -- phases -----------------------------------------------------------------------------------

    @property
    def trains_expert(self) -> bool:
        """Whether the steps train the expert."""
        return self.expert is not None and not self._consolidates

    @property
    def trained_model(self) -> RenateModule:
        return self.expert if self.trains_expert else self.model  # type: ignore[return-value]

    @property
    def measured(self) -> RenateModule:
        return self.trained_model if self.trains_expert else self.served

    @property
    def is_final(self) -> bool:
        return not self.trains_expert

    def train_dataloader(self) -> StepLoader:
        if self.expert is not None and self._epochs >= self.expert_epochs:
            loader = super().train_dataloader()
        else:
            loader = self.loader(self.new)
        return _OnDemand(loader)  # type: ignore[return-value]

    @property
    def datasets(self) -> list[StoredDataset]:
        return [self.new, *super().datasets]

    def on_train_epoch_start(self) -> None:
        if self.trains_expert and self._epochs >= self.expert_epochs:
            self._consolidate()
            self.trainer.reload_dataloaders_every_n_epochs = 0  # type: ignore[attr-defined]
            self.begin_phase()

    def on_train_epoch_end(self) -> None:
        self._epochs += 1
        if self.trains_expert and self._epochs == self.expert_epochs:
            self.reading.stop()
            self.trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]

    def _consolidate(self) -> None:
        """Freeze the expert, and train a new model from here on."""
        assert self.expert is not None
        self._consolidates = True
        self.expert = FrozenCopy(self.expert)  # type: ignore[arg-type]
        self.model.load_state_dict(dict(self.context.start.untrained))
        if self.ema_decay:
            self.average = averaged_copy(self.model, self.ema_decay)

    def after_step(self) -> None:
        if not self.trains_expert:  # the moving average follows the consolidated model
            super().after_step()

    def finish_model(self, measure: Measure | None) -> None:
        super().finish_model(measure)
        if self.trains_expert:
            self.context.say("training ended before RD's consolidation: the parent's model stays")
        self.expert = self.teacher = None

    # -- consolidation ----------------------------------------------------------------------------

    def loss(self, batch: StepBatch) -> Tensor:
        if not self._consolidates:
            return super().loss(batch)
        passed = self.pass_on(batch.new)
        distance = distance_to_kept(passed.outputs, self.taught(passed), batch.new)
        return self.weighed(distance / 2, batch.new)

    @torch.no_grad()
    def taught(self, passed: ForwardResult) -> Tensor:
        """Return what the model should put out for a batch, float32 `(B, K)`; NaN for padding."""
        assert self.teacher is not None and isinstance(self.expert, FrozenCopy)
        batch, task = passed.batch, self.context.task
        parents, experts = (
            each(batch.inputs, self.context.task_id).float() for each in (self.teacher, self.expert)
        )
        old = torch.zeros(len(parents), *[1] * (parents.dim() - 1), dtype=torch.bool)
        old.view(-1)[: len(batch.rows)] = torch.from_numpy(batch.rows < len(self.pool.parts[0]))
        target = torch.where(old.to(parents.device), parents, experts)
        if task.has_padding:
            ignored = task.fitted(passed.outputs, batch.targets) == IGNORED
            target[ignored] = torch.nan
        return target - target.nanmean(-1, keepdim=True) if task.ignores_shifts else target

    # -- position ---------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        own = {"epochs": self._epochs + 1, "consolidates": self._consolidates}
        return {**super().position(), **own}  # read before `on_train_epoch_end` counts the epoch

    def restore_position(self, position: Mapping[str, Any]) -> None:
        super().restore_position(position)
        self._epochs = position["epochs"]
        if position["consolidates"]:
            self._consolidate()


class _OnDemand:
    """A loader whose epoch begins with its first batch, because Lightning may start a reloaded one twice.

    Args:
        loader: The loader.
    """

    def __init__(self, loader: StepLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[StepBatch]:
        yield from self.loader
