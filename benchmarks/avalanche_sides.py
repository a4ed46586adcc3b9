"""The three sides of `avalanche.py`: Avalanche alone, its strategy inside our updates, and ours.

Nothing of renate_stages takes part in Avalanche's own side but the names of its seeds, with which
it starts from the same weights and draws the same: equal bits can then be asked for.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import production
import torch
from avalanche_methods import (
    ANGLES,
    BATCH,
    CLASSES,
    FIRST,
    HOLDOUT,
    MEMORY,
    METHODS,
    QUICK_TRAIN,
    TEST,
    TRAIN,
    Method,
)
from mnist import Images
from production import ScaledCNN, ScaledMLP, Split
from runs import Digits, Record
from torch import Tensor, nn
from torch.utils.data import Dataset

from renate_stages.errors import RenateStagesError
from renate_stages.models import RenateModule
from renate_stages.randomness import Generators


class Seconds(NamedTuple):
    """How long something took: on the clock, and on the processor."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        """Return where both stand."""
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Seconds:
        """Return what has passed."""
        now = Seconds.now()
        return Seconds(now.clock - self.clock, now.processor - self.processor)


class Update(NamedTuple):
    """What a side has after an update.

    Args:
        seconds: That the update took.
        model: What would be served, in evaluation mode.
        weights: All that were trained, one after the other.
    """

    seconds: Seconds
    model: Callable[[Tensor], Tensor]
    weights: Tensor


def run_method(method: Method, seed: int, digits: Digits, quick: bool) -> Record:
    """Take a method through its stream on every side; return what each had after each update.

    Raises:
        RuntimeError: If an update ends with an error; it names the side.
    """
    imports = warm_up()
    size = (QUICK_TRAIN if quick else TRAIN)[method.protocol]
    stream = stream_of(method.protocol, seed, digits, size)
    order = method.sides if seed % 2 == 0 else method.sides[::-1]  # each comes first in turn
    record: Record = {"seconds of imports": imports}
    weights, answers = {}, {}
    for side in order:
        try:
            found = list(_followed(SIDES[side](method, stream, seed), stream))
        except RenateStagesError as error:  # such as a loss that is not finite
            raise RuntimeError(f"{method.label} {side}, seed {seed}: {error}") from error
        record[f"accuracy {side}"] = [accuracy for _, accuracy, _ in found]
        record[f"seconds {side}"] = [update.seconds.processor for update, _, _ in found]
        record[f"seconds on the clock {side}"] = [update.seconds.clock for update, _, _ in found]
        weights[side] = [update.weights for update, _, _ in found]
        answers[side] = [said for _, _, said in found]
    pairs = zip(weights["alone"], weights["inside"], strict=True)
    record["equal bits"] = [torch.equal(alone, inside) for alone, inside in pairs]
    pairs = zip(answers["alone"], answers["inside"], strict=True)
    record["other answers"] = [int((alone != inside).sum()) for alone, inside in pairs]
    return record


@cache
def warm_up() -> float:
    """Take tiny streams through every side, so that no import is timed; return Avalanche's seconds.

    Those are what its import takes where PyTorch and Lightning are there.
    """
    import pytorch_lightning  # noqa: F401

    started = Seconds.now()
    _import_avalanche()
    seconds = started.since().processor
    generator = np.random.default_rng(0)
    for method in METHODS:
        shape = (400, 32, 32, 3) if method.protocol == "cifar" else (400, 28, 28)
        images = Images(generator.integers(0, 256, shape, np.uint8), np.arange(400) % 10)
        stream = stream_of(method.protocol, 0, (images, images), 400)[:2]
        for side in method.sides:
            list(SIDES[side](method, stream, 0))
    return seconds


# -- streams --------------------------------------------------------------------------------------


def stream_of(protocol: str, seed: int, digits: Digits, size: int) -> list[Split]:
    """Return the data of each update: five times two classes, or ten angles.

    Args:
        protocol: Which of them.
        seed: Chooses the order of the training images.
        digits: All images of the dataset.
        size: Training images of all updates together; those of no two updates are the same.
    """
    train, test = digits
    test = test.at(slice(TEST[protocol]))
    available = min(FIRST[protocol], len(train.labels))
    chosen = train.at(np.random.default_rng(seed).permutation(available)[:size])
    if protocol in ("split", "cifar"):
        updates = [range(first, first + CLASSES) for first in range(0, 10, CLASSES)]
        return [Split(chosen.of_classes(*each), test.of_classes(*each)) for each in updates]
    parts = np.array_split(np.arange(len(chosen.labels)), len(ANGLES))
    return [
        Split(chosen.at(rows).rotated(angle), test.rotated(angle))
        for rows, angle in zip(parts, ANGLES, strict=True)
    ]


def _followed(
    updates: Iterator[Update], stream: list[Split]
) -> Iterator[tuple[Update, float, np.ndarray]]:
    """Yield each update with accuracy, in percent, and answers on all that was met so far."""
    for number, update in enumerate(updates, start=1):
        tests = [split.test for split in stream[:number]]
        said = np.concatenate([production.answers(update.model, test) for test in tests])
        labels = np.concatenate([test.labels for test in tests])
        yield update, 100 * float(np.mean(said == labels)), said


# -- inside, and ours -----------------------------------------------------------------------------


def inside(method: Method, stream: list[Split], seed: int) -> Iterator[Update]:
    """Take Avalanche's strategy through our updates, each from one state on disk to the next."""
    values = {**method.common, **method.inside}
    return _updates(method, f"Avalanche-{method.name}", values, stream, seed)


def native(method: Method, stream: list[Split], seed: int) -> Iterator[Update]:
    """Take our own learner of the method through the same updates."""
    assert method.native is not None
    return _updates(method, method.native, {**method.common, **method.own}, stream, seed)


def _updates(
    method: Method, learner: str, values: dict[str, Any], stream: list[Split], seed: int
) -> Iterator[Update]:
    user = production.user_of({ScaledMLP: _mlp, ScaledCNN: _cnn}[method.model])
    with TemporaryDirectory() as folder:
        source = None
        for number, (train, test, _) in enumerate(stream, start=1):
            target = Path(folder) / f"state-{number}"
            data = Split(train, test.at(slice(HOLDOUT)))
            started = Seconds.now()
            production.update(user, learner, values, data, source, target, seed)
            seconds = started.since()
            model = production.model_of(user, values, target)
            yield Update(seconds, model, _weights_of(model))
            source = target


def _mlp(model_state_url: str | None = None) -> RenateModule:
    return production.stored_or(model_state_url, ScaledMLP)


def _cnn(model_state_url: str | None = None) -> RenateModule:
    return production.stored_or(model_state_url, ScaledCNN)


def _weights_of(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# -- Avalanche alone ------------------------------------------------------------------------------


class Pairs(Dataset):
    """Images and labels in main memory, as Avalanche's users give them."""

    def __init__(self, images: Images) -> None:
        self.inputs = torch.from_numpy(images.inputs.copy())
        self.targets: list[int] = images.labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], self.targets[index]


def alone(method: Method, stream: list[Split], seed: int) -> Iterator[Update]:
    """Take Avalanche through the stream in one process, by its own loop and from its own datasets."""
    Generators(seed, 1).seed_global("model")
    started = Seconds.now()
    with warnings.catch_warnings(record=True):  # Avalanche sets filters: no other would do
        strategy = _strategy_of(method, method.model())
        experiences = _experiences_of(stream)
    for number, experience in enumerate(experiences, start=1):
        Generators(seed, number).seed_global("training")
        with warnings.catch_warnings(record=True):
            strategy.train(experience, eval_streams=[])
        seconds = started.since()
        yield Update(seconds, strategy.model.eval(), _weights_of(strategy.model))
        started = Seconds.now()


def _strategy_of(method: Method, model: ScaledMLP | ScaledCNN) -> Any:
    from avalanche.training import plugins, supervised, templates

    common = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=method.rate),
        "train_mb_size": BATCH,
        "eval_mb_size": BATCH,
        "train_epochs": 1,
        "evaluator": None,
    }
    if method.name == "iCaRL":
        parts = {"feature_extractor": model.features, "classifier": model.head}
        size = {"memory_size": MEMORY, "buffer_transform": None, "fixed_memory": True}
        return supervised.ICaRL(**parts, **size, **common)
    made = {
        "ER": lambda: [plugins.ReplayPlugin(MEMORY)],
        "EWC": lambda: [plugins.EWCPlugin(method.inside["ewc_lambda"])],
        "LwF": lambda: [plugins.LwFPlugin(method.inside["alpha"], temperature=2.0)],
        "Naive": list,
    }
    criterion = nn.CrossEntropyLoss()
    chosen = made[method.name]()
    return templates.SupervisedTemplate(model=model, criterion=criterion, plugins=chosen, **common)


def _experiences_of(stream: list[Split]) -> list[Any]:
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset

    datasets = []
    for split in stream:
        pairs = Pairs(split.train)
        datasets.append(
            _make_taskaware_classification_dataset(pairs, targets=pairs.targets, task_labels=0)
        )
    experiences = list(benchmark_from_datasets(train=datasets).train_stream)
    for experience in experiences:  # what iCaRL asks it, and this kind of stream does not know
        sizes = [CLASSES] * len(stream)
        experience.benchmark = SimpleNamespace(n_classes_per_exp=sizes, classes_order=range(10))
    return experiences


def _import_avalanche() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import avalanche.benchmarks
        import avalanche.training.supervised  # noqa: F401


SIDES = {"alone": alone, "inside": inside, "native": native}
