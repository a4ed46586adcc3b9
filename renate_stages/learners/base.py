"""The base of all learners, and fine-tuning, which is the base and nothing more.

A learner sees datasets and tensors, never files. An update calls, in this order:

    start_update(new, memory)      look at the data, make loaders
    train_dataloader()             Lightning asks for the batches of an epoch
    training_step(batch, index)    the loss of one step
    choose_memory(old, new)        which examples stay for later updates
    learner_state()                what else the next update needs
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from renate_stages.data import StoredDataset, make_loader
from renate_stages.errors import InvalidHyperparameterError
from renate_stages.memory import Selection, SelectionPolicy
from renate_stages.models import RenateModule
from renate_stages.models.features import features_of
from renate_stages.randomness import Generators

Batch = tuple[Any, Any]
FEATURE_BATCH = 256  # examples whose features are computed at once


@dataclass(frozen=True)
class UpdateContext:
    """What an update gives to its learner.

    Args:
        model: The model to train, with the parent's weights.
        untrained: Weights of a newly built model, for learners that start anew.
        loss_fn: Loss of outputs and targets, one value per example or their mean.
        optimizer_fn: Builds the optimizer from the parameters to train.
        lr_scheduler_fn: Builds a scheduler from the optimizer, and says how often it steps:
            `epoch` or `step`. None: a constant rate.
        task_id: Names the model's parameters of this task.
        generators: The update's named generators.
        num_workers: Loader processes.
        test_transforms: Of inputs and targets, as examples are measured.
    """

    model: RenateModule
    untrained: Mapping[str, Any]
    loss_fn: Callable[[Any, Any], Tensor]
    optimizer_fn: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
    lr_scheduler_fn: tuple[Callable[[torch.optim.Optimizer], Any], str] | None
    task_id: str
    generators: Generators
    num_workers: int = 0
    test_transforms: tuple[Any, Any] = (None, None)


class Learner(LightningModule):
    """Trains on the new data. Subclasses change what a step learns from, and what is kept.

    Args:
        context: What the update gives.
        batch_size: New examples per step, >= 1.
    """

    def __init__(self, context: UpdateContext, batch_size: int = 32) -> None:
        super().__init__()
        self.context = context
        self.model = context.model
        self.batch_size = positive("batch_size", batch_size)
        self.policy: SelectionPolicy | None = None
        self._order: torch.Generator | None = None  # of the running training
        self._order_state: Tensor | None = None  # where a resumed training stands in it

    def start_update(self, new: StoredDataset, memory: StoredDataset) -> None:
        """Take the data of the update.

        Args:
            new: The new training examples, as the train transform gives them.
            memory: Past examples, as the memory's transform gives them; may be empty.
        """
        self.new = new
        self.memory = memory

    def train_dataloader(self) -> DataLoader:
        """Return the batches of one epoch: the new data, shuffled anew in each."""
        return self.loader(self.new)

    def loader(self, dataset: Dataset) -> DataLoader:
        """Return shuffled batches of `batch_size`; the last may be smaller, none is dropped."""
        self._order = self.context.generators.torch("batches")
        if self._order_state is not None:
            self._order.set_state(self._order_state)
        return make_loader(
            dataset,
            self.batch_size,
            shuffle=True,
            generator=self._order,
            num_workers=self.context.num_workers,
        )

    def position(self) -> dict[str, Any]:
        """Return where training stands in its data, between two epochs: tensors, plain values.

        A learner that draws from more than `loader` adds its own.
        """
        return {} if self._order is None else {"order": self._order.get_state()}

    def take_position(self, position: Mapping[str, Any]) -> None:
        """Go on from what `position` returned; called after `start_update`, before training."""
        self._order_state = position["order"]

    def forward(self, inputs: Any) -> Any:
        """Return the model's outputs for this update's task."""
        return self.model(inputs, task_id=self.context.task_id)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of one step, a scalar."""
        loss = self.loss(batch)
        self.log(
            "train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch[1])
        )
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss on a batch of new examples, a scalar."""
        inputs, targets = batch
        return self.context.loss_fn(self(inputs), targets).mean()

    def configure_optimizers(self) -> Any:
        """Build optimizer and scheduler for the parameters of this update's task."""
        parameters = [p for p in self.model.get_params(self.context.task_id) if p.requires_grad]
        optimizer = self.context.optimizer_fn(parameters)
        if self.context.lr_scheduler_fn is None:
            return optimizer
        scheduler_fn, interval = self.context.lr_scheduler_fn
        return [optimizer], [{"scheduler": scheduler_fn(optimizer), "interval": interval}]

    def choose_memory(self, old: StoredDataset, new: StoredDataset) -> Selection:
        """Return which rows of the old memory stay and which new ones enter.

        Called once, when training has ended: a new example is taken in once, however many epochs
        it had. Without a policy nothing is kept.
        """
        if self.policy is None:
            nothing = np.empty(0, dtype=np.int64)
            return Selection(kept=nothing, added=nothing)
        features = self._features(new) if self.policy.needs_features else None
        return self.policy.select(old.labels(), new.labels(), len(old), len(new), features)

    def _features(self, dataset: StoredDataset) -> np.ndarray:
        """Return the model's features of examples as they are measured, float32 `(rows, d)`."""
        plain = StoredDataset(dataset.store, dataset.rows, *self.context.test_transforms)
        loader = make_loader(plain, FEATURE_BATCH, shuffle=False, generator=None)
        found = [features_of(self.model, inputs, self.context.task_id) for inputs, _ in loader]
        return torch.cat(found).numpy() if found else np.empty((0, 1), dtype=np.float32)

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the next update needs: tensors, and values that JSON can hold."""
        return {}, {} if self.policy is None else {"policy": self.policy.state()}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take what `learner_state` returned at the parent's end, from this or another learner."""
        saved = values.get("policy")
        if self.policy is not None and saved is not None and saved["policy"] == self.policy.name:
            self.policy.restore(saved)


class FineTuning(Learner):
    """Trains on the new data alone, and so forgets: the baseline that every other must beat."""


def hyperparameters_of(learner: type[Learner]) -> dict[str, inspect.Parameter]:
    """Return the hyperparameters of a learner and its bases, by name."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(learner.__mro__):
        if issubclass(base, Learner) and "__init__" in vars(base):
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind is not parameter.VAR_KEYWORD:
                    found[parameter.name] = parameter
    return {name: each for name, each in found.items() if name not in ("self", "context")}


def positive(name: str, value: int) -> int:
    """Return a hyperparameter that must be a whole number >= 1.

    Raises:
        InvalidHyperparameterError: If it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidHyperparameterError(name, value, "a whole number >= 1")
    return value
