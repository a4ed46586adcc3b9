"""Shared helpers of learner tests: a tiny model, small stores and no updater."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from renate_stages.data import StepBatch, StoredDataset
from renate_stages.learners.base import Learner
from renate_stages.learners.base.context import StartingPoint, TrainingFunctions, UpdateContext
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP
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
