"""Shared helpers of updater and resume tests: updates of a tiny model, without a project."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from renate_stages.memory import ExampleStore, StoreWriter, evolve
from renate_stages.models import MLP
from renate_stages.models.stored import write_model
from renate_stages.params import Params
from renate_stages.state import Provenance, State, state
from renate_stages.training.updated_model import UpdatedModel, write_learner
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

RATE = 0.1
VALUES = {"learning_rate": RATE, "batch_size": 8, "memory_batch_size": 6, "memory_size": 20}


def model_fn(model_state_url: str | None = None, dropout: float = 0.0) -> MLP:
    model = MLP(num_inputs=5, num_outputs=3, hidden_size=4, dropout=dropout)
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url, weights_only=True))
    return model


def write_examples(path: Path, rows: int, first: int = 0, **metadata) -> ExampleStore:
    """Write rows whose first input encodes their number, counted from `first`."""
    generator = np.random.default_rng(first)
    with StoreWriter(path, update=1) as writer:
        if rows:
            inputs = generator.normal(size=(rows, 5)).astype(np.float32)
            inputs[:, 0] = np.arange(first, first + rows)
            inputs[:, 0] /= 100
            writer.append((inputs, generator.integers(0, 3, rows)), metadata)
    return ExampleStore.open(path)


def numbers_of(store: ExampleStore, rows: np.ndarray) -> list[int]:
    return [round(float(x) * 100) for x in store.column("inputs")[rows, 0]]


def updater(
    learner: str = "ER",
    values=VALUES,
    seed: int = 0,
    number: int = 1,
    functions=None,
    task: str = "auto",
    **trainer,
) -> Updater:
    params = {
        "seed": seed,
        "learner": learner,
        "task": task,
        "update": {"number": number},
        "trainer": {"max_epochs": 2, **trainer},
    }
    if learner == "RanPAC":
        values = {"num_random_features": 50, **values}  # the default of 2,000 takes a second
    user = UserConfig(Path("renate_config.py"), {"model_fn": model_fn, **(functions or {})})
    return Updater(user, Params.parse(params), values)


def weights(updated: UpdatedModel) -> torch.Tensor:
    return nn.utils.parameters_to_vector(updated.model.parameters()).detach()


def state_of(
    folder: Path,
    updated: UpdatedModel,
    update: int,
    classes=(0, 1, 2),
    parent: State | None = None,
    new: ExampleStore | None = None,
    labels: tuple[str, ...] = (),
) -> State:
    """Write an updated model as a state and open it; write its memory too if `new` is given."""
    folder.mkdir()
    state.write_empty(folder)
    write_model(folder, updated.model)
    write_learner(folder, updated.learner)
    if new is not None:
        (folder / "memory" / "index.json").unlink()
        chosen = updated.chosen
        evolve(
            folder / "memory",
            parent.memory() if parent else None,
            chosen.selection.kept,
            new,
            chosen.selection.added,
            update,
            metadata=chosen.fields,
            added_metadata=chosen.added_fields,
        )
    state.write_manifest(
        folder, Provenance("update", update, classes=tuple(classes), labels=labels)
    )
    return State.open(folder)


def in_memory(made: Updater, before: UpdatedModel, parent: State) -> Updater:
    """Let an updater continue from the objects of an update instead of from its state."""
    untrained = made.build_model(None)
    model = copy.deepcopy(before.model)
    learner = made.learner(model, untrained.state_dict(), parent)
    learner.restore_learner(*before.learner.learner_state())
    made._restored = lambda *_: learner
    return made


class Interrupt:
    """A random transform that raises `KeyboardInterrupt` at its `left`-th call."""

    def __init__(self) -> None:
        self.left = -1

    def __call__(self, inputs):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return inputs + 0.01 * torch.randn(5)
