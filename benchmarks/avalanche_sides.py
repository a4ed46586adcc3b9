"""The three sides of `avalanche.py`: Avalanche alone, its strategy inside our updates, and ours.

Nothing of renate_stages takes part in Avalanche's own side but the names of its seeds, with which
it starts from the same weights and draws the same: equal bits can then be asked for.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import production
import torch
from mnist import Images
from production import ScaledMLP, Split
from runs import Digits, Record
from torch import Tensor, nn
from torch.utils.data import Dataset

from renate_stages.errors import RenateStagesError
from renate_stages.models import RenateModule
from renate_stages.randomness import Generators

BATCH = 32  # new examples a step, and remembered ones
MEMORY = 500
FIRST = 50_000  # training digits that streams are drawn from; the others chose the settings
TRAIN = {"split": 20_000, "rotated": 50_000}  # of a stream
QUICK_TRAIN = {"split": 5000, "rotated": 15_000}
HOLDOUT = 200  # rows of the holdout that a state keeps; accuracies are measured on `TEST`
TEST = {"split": 10_000, "rotated": 2000}  # test digits, at each angle
CLASSES = 2  # of an update of the split protocol
ANGLES = tuple(range(0, 100, 10))  # degrees, an update each


@dataclass(frozen=True)
class Method:
    """A line of the table.

    Args:
        protocol: `split` or `rotated`.
        name: Of the part of Avalanche: inside, the learner is `Avalanche-NAME`.
        rate: Learning rate of SGD, on every side.
        inside: Hyperparameters of Avalanche, in our words.
        native: Our own learner of the method; None: there is none.
        own: Its hyperparameters.
    """

    protocol: str
    name: str
    rate: float
    inside: Mapping[str, Any] = field(default_factory=dict)
    native: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What its records are called."""
        return f"{self.protocol} {self.name}"

    @property
    def sides(self) -> tuple[str, ...]:
        """Its sides, as they are shown."""
        return ("alone", "inside", "native") if self.native else ("alone", "inside")

    @property
    def common(self) -> dict[str, Any]:
        """What all sides share."""
        return {"learning_rate": self.rate, "batch_size": BATCH}


# The weights of EWC are no equals: Avalanche's penalty is lambda times a sum over updates, of squared
# gradients of batches' means; ours is half the weight times one sum, of single examples' gradients,
# which are as many times larger as a batch has examples. iCaRL's rates are equals: its loss is a mean
# over ten classes there, and a sum here, as in the paper. With a lambda of 10 the weights of seed 3
# grow without end, alone as inside; so it is 3. Those of LwF are equals: Avalanche's lacks T^2.
METHODS = (
    Method(
        "split",
        "ER",
        0.1,
        {"memory_size": MEMORY},
        "ER",
        {"memory_size": MEMORY, "memory_batch_size": BATCH},
    ),
    Method(
        "split",
        "iCaRL",
        1.0,
        {"memory_size": MEMORY},
        "iCaRL",
        {"memory_size": MEMORY, "memory_batch_size": BATCH, "learning_rate": 0.1},
    ),
    Method("rotated", "EWC", 0.1, {"ewc_lambda": 3.0}, "EWC", {"ewc_weight": 1.0}),
    Method("rotated", "LwF", 0.1, {"alpha": 12.0}, "LwF", {"distillation_weight": 3.0}),
    Method("rotated", "Naive", 0.1, native="FineTuning"),
)


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
    images = Images(generator.integers(0, 256, (400, 28, 28), np.uint8), np.arange(400) % 10)
    for method in METHODS:
        stream = stream_of(method.protocol, 0, (images, images), 400)[:2]
        for side in method.sides:
            list(SIDES[side](method, stream, 0))
    return seconds


# -- streams --------------------------------------------------------------------------------------


def stream_of(protocol: str, seed: int, digits: Digits, size: int) -> list[Split]:
    """Return the data of each update: five times two classes, or ten angles.

    Args:
        protocol: Which of them.
        seed: Chooses the order of the training digits.
        digits: All.
        size: Training digits of all updates together; those of no two updates are the same.
    """
    train, test = digits
    test = test.at(slice(TEST[protocol]))
    chosen = train.at(np.random.default_rng(seed).permutation(len(train.labels[:FIRST]))[:size])
    if protocol == "split":
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
    return _updates(f"Avalanche-{method.name}", values, stream, seed)


def native(method: Method, stream: list[Split], seed: int) -> Iterator[Update]:
    """Take our own learner of the method through the same updates."""
    assert method.native is not None
    return _updates(method.native, {**method.common, **method.own}, stream, seed)


def _updates(
    learner: str, values: dict[str, Any], stream: list[Split], seed: int
) -> Iterator[Update]:
    user = production.user_of(_mlp)
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
        strategy = _strategy_of(method, ScaledMLP())
        experiences = _experiences_of(stream)
    for number, experience in enumerate(experiences, start=1):
        Generators(seed, number).seed_global("training")
        with warnings.catch_warnings(record=True):
            strategy.train(experience, eval_streams=[])
        seconds = started.since()
        yield Update(seconds, strategy.model.eval(), _weights_of(strategy.model))
        started = Seconds.now()


def _strategy_of(method: Method, model: ScaledMLP) -> Any:
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
