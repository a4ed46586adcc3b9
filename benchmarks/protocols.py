"""The protocols of `learners.py`: which data come in which order, and each row's settings.

Settings are those of the DER authors' code (Buzzega et al., NeurIPS 2020); of the rotated update,
whose source names none, ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import plain_loops
import plain_methods
import plain_selection
import production
import torch
from mnist import Images
from plain_contrast import shifted
from plain_loops import Loss, Recipe, Task
from production import DigitsCNN, DigitsMLP, Split
from runs import Digits, Record
from torch import nn

from renate_stages.data import Batched
from renate_stages.learners import registry
from renate_stages.models import RenateModule
from renate_stages.randomness import Generators
from renate_stages.user.config import UserConfig

HOLDOUT = 200  # rows of the holdout that a state keeps; results are measured on whole test sets
FIRST_ORDER = 1000  # seed of the first order of pixels; the same in every run
UPDATES = {"split": 5, "uneven": 5, "permuted": 20, "ridge": 5, "small": 5, "shifted": 5}
QUICK_UPDATES = 3  # of the permuted protocol
MANY, FEW = 2000, 200  # training digits of the one large update, and of each other uneven one

SMALL = 10_000  # digits of the two smaller protocols
ANGLE = 20  # degrees between two updates of the shifted one
WEIGHTS = {  # what the recipe's alpha is in ours
    "BiC": "temperature",
    "L2-Init": "init_weight",
    "L2-SP": "l2_weight",
    "LUCIR": "less_forget_weight",
    "MAS": "mas_weight",
    "SI": "si_weight",
    "WA": "temperature",
}
PLAIN = Recipe(rate=0.1)


@dataclass(frozen=True)
class Row:
    """A line of the table: one learner, with one memory, in one protocol.

    Args:
        protocol: A key of `UPDATES`.
        name: Of the line.
        learner: In the registry.
        recipe: Settings of the plain loop, and so of ours.
        loss: Of the plain loop.
        paper: Mean accuracy that the DER paper's appendix gives; None: it has none.
        own: Hyperparameters of ours alone.
        method: The plain loop, if the method does more than change the loss of a step.
        views: Whether steps use random views of the examples.
    """

    protocol: str
    name: str
    learner: str
    recipe: Recipe = PLAIN
    loss: Loss = plain_loops.finetuning
    paper: float | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    method: type[plain_methods.Method] | None = None
    views: bool = False

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Return ours: the recipe's in our words, and its own."""
        if self.protocol == "ridge":
            return dict(self.own)
        recipe = self.recipe
        values: dict[str, Any] = {"learning_rate": recipe.rate, "batch_size": recipe.batch}
        if recipe.memory:
            values["memory_size"] = recipe.memory
            values["memory_batch_size"] = recipe.memory_batch
            values["memory_update"] = "online"  # a stream of one pass, as in the papers
        first = WEIGHTS.get(self.learner, "alpha")
        weights = {first: recipe.alpha, "beta": recipe.beta}
        return {**values, **{name: each for name, each in weights.items() if each}, **self.own}


def _replay(protocol: str, learner: str, paper: float | None, recipe: Recipe) -> Row:
    losses = {
        "ER": plain_loops.er,
        "ER-ACE": plain_loops.er_ace,
        "A-GEM": plain_loops.a_gem,
        "MIR": plain_loops.mir,
        "ASER": plain_selection.aser,
        "GSS": plain_selection.gss,
    }
    loss = losses.get(learner, plain_loops.der)
    return Row(protocol, f"{learner} {recipe.memory}", learner, recipe, loss, paper)


def _ridge(features: int) -> Row:
    own = {"num_random_features": features, "ridge": RIDGE}
    return Row("ridge", f"RanPAC {features}", "RanPAC", own=own)


RIDGE = 1e-4  # of the mean of the Gram matrix's diagonal
ROWS = [
    Row("split", "Joint", "Joint", Recipe(0.1), paper=95.57),
    Row("split", "FineTuning", "FineTuning", Recipe(0.03), paper=19.60),
    _replay("split", "ER", 80.43, Recipe(0.01, 10, 200, 10)),
    _replay("split", "ER", 86.12, Recipe(0.1, 10, 500, 10)),
    _replay("split", "ER", 93.40, Recipe(0.1, 10, 5120, 10)),
    _replay("split", "DER", 84.55, Recipe(0.03, 10, 200, 10, alpha=0.2)),
    _replay("split", "DER", 90.54, Recipe(0.03, 10, 500, 128, alpha=1.0)),
    _replay("split", "DER", 94.90, Recipe(0.1, 10, 5120, 128, alpha=0.5)),
    _replay("split", "DER++", 85.61, Recipe(0.03, 10, 200, 128, alpha=0.2, beta=1.0)),
    _replay("split", "DER++", 91.00, Recipe(0.03, 10, 500, 10, alpha=1.0, beta=0.5)),
    _replay("split", "DER++", 95.30, Recipe(0.1, 10, 5120, 64, alpha=0.2, beta=0.5)),
    _replay("split", "ER-ACE", None, Recipe(0.03, 10, 200, 10)),
    _replay("split", "ER-ACE", None, Recipe(0.03, 10, 500, 10)),
    _replay("split", "A-GEM", None, Recipe(0.03, 10, 500, 64)),
    _replay("split", "MIR", None, Recipe(0.05, 10, 500, 10)),
    _replay("split", "ASER", None, Recipe(0.05, 10, 500, 10)),
    _replay("split", "GSS", None, Recipe(0.05, 10, 500, 10)),
    Row("split", "L2-SP", "L2-SP", Recipe(0.03, alpha=0.1), plain_loops.l2_sp),
    _replay("uneven", "ER", None, Recipe(0.05, 10, 300, 10)),
    _replay("uneven", "GSS", None, Recipe(0.05, 10, 300, 10)),
    _ridge(1000),
    _ridge(4000),
    Row("permuted", "FineTuning", "FineTuning", Recipe(0.2, 128), paper=40.70),
    _replay("permuted", "ER", 72.37, Recipe(0.2, 128, 200, 128)),
    _replay("permuted", "ER", 80.60, Recipe(0.2, 128, 500, 128)),
    _replay("permuted", "ER", None, Recipe(0.2, 128, 5120, 128)),
    _replay("permuted", "DER", 87.29, Recipe(0.2, 128, 500, 128, alpha=1.0)),
    _replay("permuted", "DER++", 88.21, Recipe(0.2, 128, 500, 128, alpha=1.0, beta=0.5)),
]
QUICK_ROWS = {
    "split": (
        *("FineTuning", "ER 500", "DER 200", "DER++ 500", "ER-ACE 500"),
        *("A-GEM 500", "MIR 500", "ASER 500", "GSS 500", "L2-SP"),
    ),
    "uneven": ("ER 300", "GSS 300"),
    "permuted": ("FineTuning", "ER 500", "DER++ 500"),
    "ridge": ("RanPAC 4000",),
    "small": ("BiC 500", "LUCIR 500"),
    "shifted": ("MAS", "SI"),
}


def run_row(row: Row, seed: int, digits: Digits, quick: bool) -> Record:
    """Run a learner and its plain loop from the same initial weights; return their accuracies."""
    number = QUICK_UPDATES if quick and row.protocol == "permuted" else UPDATES[row.protocol]
    train, test = digits
    few = row.protocol in ("small", "shifted")
    parts = [train.at(slice(SMALL)) if few else train] * number
    if row.protocol == "shifted":
        rows = np.array_split(np.arange(len(parts[0].labels)), number)
        parts = [train.at(each) for each in rows]
    pairs = [(of_update(row, part, k), of_update(row, test, k)) for k, part in enumerate(parts)]
    if row.protocol == "uneven":
        sizes = [MANY if k == seed % number else FEW for k in range(number)]
        pairs = [
            (part.at(slice(size)), whole) for (part, whole), size in zip(pairs, sizes, strict=True)
        ]
    user = production.user_of(_features_alone if row.protocol == "ridge" else _mlp)
    if row.views:
        views = dict.fromkeys(("train_transform", "buffer_transform"), _views)
        user = UserConfig(user.path, {**user.functions, **views})
    started = time.perf_counter()
    ours, rows = _ours(row, seed, user, pairs)
    between = time.perf_counter()
    plain = _plain(row, seed, user, pairs)
    ended = time.perf_counter()
    return {
        "ours": ours,
        "plain": plain,
        "rows kept": rows,
        "seconds of ours": between - started,
        "seconds of plain": ended - between,
    }


def of_update(row: Row, images: Images, number: int) -> Images:
    """Return what of a whole set belongs to an update, from 0."""
    if row.protocol == "permuted":
        return images.permuted(FIRST_ORDER + number)
    if row.protocol == "shifted":
        return images.rotated(ANGLE * number)
    return images.of_classes(2 * number, 2 * number + 1)


def _ours(row: Row, seed: int, user: UserConfig, pairs: list[tuple[Images, Images]]):
    """Return accuracy, and the rows that the last state keeps for replay."""
    with TemporaryDirectory() as folder:
        source, figures = None, {}
        for number, (train, test) in enumerate(pairs, start=1):
            target = Path(folder) / f"state-{number}"
            data = Split(train, test.at(slice(HOLDOUT)))
            figures = production.update(
                user, row.learner, row.hyperparameters, data, source, target, seed
            )
            source = target
        assert source is not None
        model = production.model_of(user, row.hyperparameters, source)
        return _mean_accuracy(model, row, pairs, scale=False), figures["memory"]["rows"]


def _plain(row: Row, seed: int, user: UserConfig, pairs: list[tuple[Images, Images]]) -> float:
    def stream() -> Iterator[Task]:
        for train, _ in pairs:
            yield production.as_floats(train), torch.from_numpy(train.labels.copy())

    if row.protocol == "ridge":
        features = row.own["num_random_features"]
        found = plain_loops.ridge_on_random_features(stream(), features, RIDGE, seed)
        return _mean_accuracy(found, row, pairs, scale=True)
    tasks = stream()
    if row.learner == "Joint":
        parts = list(tasks)
        tasks = iter([(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))])
    model = plain_mlp(user, seed)
    if row.method is not None:
        torch.manual_seed(seed)  # for weights and views that a method draws
        method = row.method(model, row.recipe, seed)
        plain_methods.train(method, tasks, seed)
        return _mean_accuracy(method, row, pairs, scale=True)
    kind = plain_selection.GradientMemory if row.learner == "GSS" else plain_loops.Reservoir
    plain_loops.train(model, row.loss, tasks, row.recipe, seed, kind)
    return _mean_accuracy(model.eval(), row, pairs, scale=True)


def plain_mlp(user: UserConfig, seed: int) -> nn.Sequential:
    """Return the plain loops' MLP, with the weights that the first update of ours starts from."""
    Generators(seed, 1).seed_global("model")
    theirs = user.call("model_fn", {}, model_state_url=None)
    model = nn.Sequential(
        nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    with torch.no_grad():
        for own, initial in zip(model.parameters(), theirs.parameters(), strict=True):
            own.copy_(initial)
    return model


def _mean_accuracy(
    model: Callable, row: Row, pairs: list[tuple[Images, Images]], scale: bool
) -> float:
    """Return the accuracy over all test images; of the permuted, each order weighs the same."""
    sizes = [len(test.labels) for _, test in pairs]
    found = [production.accuracy(model, test, scale) for _, test in pairs]
    return float(np.average(found, weights=sizes))


def _mlp(model_state_url: str | None = None) -> RenateModule:
    return production.stored_or(model_state_url, DigitsMLP, 784, 10, hidden_size=(100, 100))


def _views() -> Batched:
    return Batched(shifted)


def _features_alone(model_state_url: str | None = None) -> RenateModule:
    return production.stored_or(model_state_url, DigitsMLP, 784, 10, num_hidden_layers=0)


# -- the rotated update ---------------------------------------------------------------------------

BASE, NEW, VALIDATION = 20_000, 2000, 500
BASE_EPOCHS, NEW_EPOCHS = 2, 5
CNN_SETTINGS = {"optimizer": "Adam", "learning_rate": 1e-3, "batch_size": 32}
SOME = {"memory_size": 500, "memory_batch_size": 32}


@dataclass(frozen=True)
class Rotated:
    """A line of the rotated update's table.

    Args:
        name: Of the line.
        learner: In the registry; None is the base itself, without an update.
        base: Learner that the base is trained by; it leaves nothing, a memory, or importances.
        own: Hyperparameters of its own.
        epochs: Of the update.
    """

    name: str
    learner: str | None
    base: str = "FineTuning"
    own: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = NEW_EPOCHS


ROTATED = [
    Rotated("the base", None),
    Rotated("FineTuning", "FineTuning"),
    Rotated("LwF", "LwF"),
    Rotated("EWC", "EWC", "EWC"),
    Rotated("MAS", "MAS", "MAS"),
    Rotated("SI", "SI", "SI"),
    Rotated("L2-SP", "L2-SP"),
    Rotated("L2-Init", "L2-Init"),
    Rotated("WiSE-FT", "WiSE-FT"),
    Rotated("ER 500", "ER", "ER", SOME),
    Rotated("A-GEM 500", "A-GEM", "ER", SOME),
    Rotated("MIR 500", "MIR", "ER", SOME),
    Rotated("ASER 500", "ASER", "ER", SOME),
    Rotated("GSS 500", "GSS", "ER", SOME),
    Rotated("LUCIR 500", "LUCIR", "ER", SOME),
    Rotated("SCR 500", "SCR", "ER", SOME),
    Rotated("ER 500, EMA 0.99", "ER", "ER", {**SOME, "ema_decay": 0.99}),
    Rotated("Budgeted, all kept", "Budgeted", "Joint", {"memory_batch_size": 32}),
    Rotated("Joint, all kept, 2 epochs", "Joint", "Joint", epochs=2),
]
QUICK_ROTATED = ("the base", "FineTuning", "WiSE-FT", "ER 500, EMA 0.99")


def known(row: Row | Rotated) -> bool:
    """Whether the registry has a row's learner."""
    return row.learner is None or row.learner in registry.LEARNERS


def run_rotated(rows: list[Rotated], seed: int, digits: Digits) -> dict[str, Record]:
    """Return accuracy on upright and turned digits after the update, by name of the row."""
    train, test = digits
    chosen = np.random.default_rng(seed).permutation(len(train.labels))
    base, new, val, val_new = (
        train.at(np.sort(part))
        for part in np.split(chosen, np.cumsum([BASE, NEW, VALIDATION, VALIDATION]))[:4]
    )
    few, turned = test.at(slice(HOLDOUT)), test.rotated()
    first = Split(base, few, val)
    second = Split(new.rotated(), turned.at(slice(HOLDOUT)), val_new.rotated())
    user = production.user_of(_cnn)
    found: dict[str, Record] = {}
    with TemporaryDirectory() as folder:
        bases: dict[str, Path] = {}
        for row in rows:
            if row.base not in bases:
                target = bases[row.base] = Path(folder) / f"base-{row.base}"
                values = {**CNN_SETTINGS, **(SOME if row.base == "ER" else {})}
                production.update(user, row.base, values, first, None, target, seed, BASE_EPOCHS)
            target = source = bases[row.base]
            started = time.perf_counter()
            if row.learner is not None:
                target = Path(folder) / f"state-{len(found)}"
                values = {**CNN_SETTINGS, **row.own}
                production.update(
                    user, row.learner, values, second, source, target, seed, row.epochs
                )
            seconds = time.perf_counter() - started
            model = production.model_of(user, {}, target)
            old, now = production.accuracy(model, test), production.accuracy(model, turned)
            mean = (old + now) / 2
            found[row.name] = {"old": old, "new": now, "mean": mean, "seconds of ours": seconds}
    return found


def _cnn(model_state_url: str | None = None) -> RenateModule:
    return production.stored_or(model_state_url, DigitsCNN)
