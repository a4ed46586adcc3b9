"""Shared helpers of learner tests: a tiny model, small stores and no updater."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from renate_stages.data import StepBatch, StoredDataset
from renate_stages.learners.base import Learner
from renate_stages.learners.base.context import StartingPoint, TrainingFunctions, UpdateContext
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP, RenateModule
from renate_stages.params import TrainerParams
from renate_stages.randomness import Generators
from renate_stages.tasks.classification import Classification
from renate_stages.tasks.row_loss import RowLoss
from renate_stages.user.optimization import default_optimizer

CLASSES = 3


def stored(path: Path, rows: int, first: int = 0, classes=tuple(range(CLASSES)), **metadata):
    """Write examples (rows, 5) float32 whose labels cycle through `classes`."""
    generator = np.random.default_rng(rows + first)
    with StoreWriter(path, update=1) as writer:
        if rows:
            inputs = generator.normal(size=(rows, 5)).astype(np.float32)
            labels = np.array(classes)[np.arange(first, first + rows) % len(classes)]
            writer.append((inputs, labels), metadata)
    return StoredDataset(ExampleStore.open(path))


def context(update: int = 1, **changes) -> UpdateContext:
    torch.manual_seed(0)
    model = MLP(num_inputs=5, num_outputs=CLASSES, hidden_size=4)
    untrained = {name: value.clone() for name, value in model.state_dict().items()
                 if isinstance(value, torch.Tensor)}  # fmt: skip
    untrained["_extra_state"] = model.get_extra_state()
    optimizer_fn = partial(default_optimizer, learning_rate=0.1)
    given = UpdateContext(
        StartingPoint(model, untrained),
        TrainingFunctions(RowLoss(Classification()), optimizer_fn),
        TrainerParams(),
        "default_task",
        Generators(0, update),
    )
    task = changes.pop("task", Classification())
    if task.name != "classification" or "loss_fn" in changes:
        changes["loss_fn"] = RowLoss(task, changes.get("loss_fn"))
    for group in ("start", "functions"):
        names = {each.name for each in fields(getattr(given, group))} & changes.keys()
        own = {name: changes.pop(name) for name in names}
        given = replace(given, **{group: replace(getattr(given, group), **own)})
    return replace(given, **changes)


def first_step(learner: Learner) -> StepBatch:
    return next(iter(learner.train_dataloader()))


def take_steps(learner: Learner, count: int) -> None:
    """Train for `count` steps in the same way as Lightning."""
    optimizer = learner.configure_optimizers()
    for _, batch in zip(range(count), learner.train_dataloader(), strict=False):
        optimizer.zero_grad()
        learner.training_step(batch, 0).backward()
        optimizer.step()
        learner.after_step()


class Noisy(RenateModule):
    """A model with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__({})
        self.features = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x, task_id=None):
        return self.head(self.features(x))


@contextmanager
def undisturbed(learner: Learner) -> Iterator[None]:
    """Check that the block changes neither the `Noisy` model nor random numbers nor gradients."""
    assert isinstance(learner.model, Noisy)
    learner.model.features[1].eval()  # a layer that the user has frozen
    parts, parameters = list(learner.model.modules()), list(learner.model.parameters())
    modes, gradients = [each.training for each in parts], [each.grad.clone() for each in parameters]
    tensors, random = copy.deepcopy(learner.model.state_dict()), torch.get_rng_state()
    yield
    assert [each.training for each in parts] == modes
    assert torch.equal(torch.get_rng_state(), random)
    after = learner.model.state_dict()
    assert all(torch.equal(after[name], each) for name, each in tensors.items() if name[0] != "_")
    assert all(torch.equal(p.grad, each) for p, each in zip(parameters, gradients, strict=True))
