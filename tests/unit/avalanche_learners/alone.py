"""Reference training with Avalanche alone: its own loop and datasets, in one process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset
from avalanche.models.base_model import BaseModel
from avalanche.training import plugins as p
from avalanche.training import supervised as s
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.utils.data import Dataset

from renate_stages.learners.avalanche import patched
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP
from renate_stages.randomness import Generators

INPUTS, CLASSES, BATCH, RATE, MOMENTUM, EPOCHS = 5, 6, 8, 0.1, 0.9, 2
MEMORY = 24

STRATEGIES: dict[str, tuple[dict[str, Any], Any]] = {
    "Naive": ({}, None),
    "ER": ({"memory_size": MEMORY}, lambda: p.ReplayPlugin(MEMORY)),
    "EWC": ({"ewc_lambda": 1.0}, lambda: p.EWCPlugin(1.0)),
    "SI": ({"si_lambda": 1.0}, lambda: patched.Intelligence(1.0)),
    "MAS": ({"lambda_reg": 0.1}, lambda: p.MASPlugin(0.1)),
    "RWalk": ({}, lambda: p.RWalkPlugin()),
    "LwF": ({}, lambda: p.LwFPlugin(1.0, 2.0)),
    "LFL": ({"lambda_e": 0.1}, lambda: p.LFLPlugin(0.1)),
    "GEM": ({"patterns_per_experience": 8}, lambda: p.GEMPlugin(8, 0.5)),
    "AGEM": (
        {"patterns_per_experience": 8, "sample_size": 8},
        lambda: p.AGEMPlugin(8, 8),
    ),
    "MIR": (
        {"memory_size": MEMORY, "memory_batch_size": 4, "subsample": 8},
        lambda: patched.MaximallyInterfered(4, MEMORY, 8),
    ),
    "GDumb": ({"memory_size": MEMORY}, lambda: p.GDumbPlugin(MEMORY)),
    "DER": ({"memory_size": MEMORY}, (s.DER, {"mem_size": MEMORY})),
    "ER-ACE": (
        {"memory_size": MEMORY, "memory_batch_size": 6},
        (s.ER_ACE, {"mem_size": MEMORY, "batch_size_mem": 6}),
    ),
    "iCaRL": ({"memory_size": MEMORY}, None),
}
"""By name: the learner's hyperparameters, and how to build the same strategy in Avalanche."""


def model_fn(model_state_url: str | None = None) -> MLP:
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
    return MLP(num_inputs=INPUTS, num_outputs=CLASSES, hidden_size=8)


def classes_of(number: int, *, again: bool = False) -> list[int]:
    """Return two new classes per update, or all classes each time."""
    return list(range(CLASSES)) if again else [2 * number - 2, 2 * number - 1]


def arrays(number: int, rows: int = 42, *, again: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    labels = generator.choice(classes_of(number, again=again), rows)
    inputs = generator.normal(size=(rows, INPUTS)).astype(np.float32)
    return inputs + labels[:, None].astype(np.float32) / 2, labels


def write(path: Path, number: int, *, again: bool = False) -> ExampleStore:
    with StoreWriter(path, update=number) as writer:
        writer.append(arrays(number, again=again))
    return ExampleStore.open(path)


class WithFeatures(nn.Module, BaseModel):
    """A model with the `get_features` method that LFL requires."""

    def __init__(self, model: MLP) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model(inputs)

    def get_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.features(x)


class Pairs(Dataset):
    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.targets = torch.from_numpy(inputs), labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.inputs[index], self.targets[index]


def train(name: str, model: MLP, updates: int, seed: int = 0) -> nn.Module:
    """Return the model that Avalanche trains over all updates, with the same seeds as ours."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=0.0)
    common = {
        "optimizer": optimizer,
        "train_mb_size": BATCH,
        "eval_mb_size": BATCH,
        "train_epochs": EPOCHS,
        "evaluator": None,
    }
    _, made = STRATEGIES[name]
    if name == "iCaRL":
        strategy: Any = s.ICaRL(
            feature_extractor=model.features,
            classifier=model.head,
            memory_size=MEMORY,
            buffer_transform=None,
            fixed_memory=True,
            **common,
        )
    elif isinstance(made, tuple):
        kind, arguments = made
        strategy = kind(model=model, criterion=nn.CrossEntropyLoss(), **common, **arguments)
    else:
        plugins = [made()] if made else []
        strategy = SupervisedTemplate(
            model=WithFeatures(model) if name == "LFL" else model,
            criterion=nn.CrossEntropyLoss(),
            plugins=plugins,
            **common,
        )
    datasets = []
    for number in range(1, updates + 1):
        pairs = Pairs(*arrays(number))
        datasets.append(
            _make_taskaware_classification_dataset(pairs, targets=pairs.targets, task_labels=0)
        )
    order = [label for number in range(1, updates + 1) for label in classes_of(number)]
    for number, experience in enumerate(benchmark_from_datasets(train=datasets).train_stream, 1):
        experience.benchmark = SimpleNamespace(n_classes_per_exp=[2] * updates, classes_order=order)
        Generators(seed, number).seed_global("training")
        strategy.train(experience, eval_streams=[])
    return strategy.model
