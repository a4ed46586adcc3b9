"""Time of one training step: `make bench NAME=step`.

Learners are stepped as the pipeline steps them, by Lightning with examples from a store, beside
three peers in the same process, in turn:

    (a) a bare PyTorch loop with the same arithmetic that indexes tensors in memory
    (b) the same with a DataLoader as people write it, an example at a time
    (c) Avalanche's strategy of the name, where it is installed (extra `avalanche`) and has one

With `--relative`, instead: what a step of each learner costs beside one of FineTuning, the table of
docs/learners.md.

Two settings: a small CNN (16 channels first) on CIFAR-sized images, 32 new and 32 remembered
examples; an MLP 784-200-10 on MNIST-sized ones, 64 and 64. The data is random: its values cost no time.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from report import Report, is_installed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from renate_stages.learners import registry
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP, SmallCNN
from renate_stages.params import Params
from renate_stages.state import Provenance, State, state
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

MEMORY = 5000
RATE = 0.01
LEARNERS = ("ER", "DER++", "CLS-ER", "LwF")
RELATIVE = (
    "WiSE-FT",
    "EWC",
    "MAS",
    "SI",
    "L2-SP",
    "L2-Init",
    "LwF",
    "ER",
    "ER-ACE",
    "Offline-ER",
    "DER",
    "DER++",
    "CLS-ER",
    "POD-ER",
    "Super-ER",
    "WA",
    "BiC",
    "LUCIR",
    "PODNet",
    "LatentReplay",
    "SCR",
    "A-GEM",
    "MIR",
    "ASER",
    "GSS",
    "iCaRL",
    "RD",
)
AVALANCHE = {"ER": "Replay", "DER++": "DER", "LwF": "LwF"}


@dataclass(frozen=True)
class Setting:
    """A model and the data it steps on.

    Args:
        name: For the table.
        batch: New examples a step, and remembered ones.
        shape: Of an image.
        model_fn: Builds the model.
        steps: Steps that are timed at once.
        most_bare: Aim: at most so many times the bare loop.
        most_avalanche: Aim: at most so many times Avalanche.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    model_fn: Callable[[], nn.Module]
    steps: int
    most_bare: float
    most_avalanche: float

    def examples(self, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return images, float32 `(rows, *shape)`, and labels, int64 `(rows,)`."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand((rows, *self.shape), generator=generator)
        return images, torch.randint(10, (rows,), generator=generator)


SETTINGS = (
    Setting("CNN", 32, (3, 32, 32), partial(SmallCNN, 3, 10, 16), 100, 1.1, 0.8),
    Setting("MLP", 64, (1, 28, 28), partial(MLP, 784, 10, 1, 200), 400, 1.5, 1.0),
)


def main() -> None:
    """Time every learner and its peers in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three repeats instead of nine")
    parser.add_argument("--only", choices=LEARNERS, help="one learner")
    parser.add_argument("--relative", action="store_true", help="learners beside FineTuning")
    arguments = parser.parse_args()
    repeats = 3 if arguments.quick else 9
    torch.set_num_threads(1)
    if arguments.relative:
        measure_relative(repeats)
        return
    with_avalanche = is_installed("avalanche")
    report = Report("step", {"repeats": repeats, "threads": 1, "avalanche": with_avalanche})
    if not with_avalanche:
        print("Avalanche is not installed: no peer (c)")
    print(f"{'milliseconds a step':<44}   median       min       max")
    for setting in SETTINGS:
        for learner in LEARNERS:
            if arguments.only in (None, learner):
                measure(report, setting, learner, repeats, with_avalanche)
    report.finish()


def measure(
    report: Report, setting: Setting, learner: str, repeats: int, with_avalanche: bool
) -> None:
    """Time one learner and its peers, in turn, after a warm-up of each."""
    with TemporaryDirectory() as folder:
        peers: dict[str, Callable[[], float]] = {
            "ours": ours(setting, learner, Path(folder)),
            "(a) bare loop": bare(setting, learner),
            "(b) DataLoader": bare(setting, learner, loaded=True),
        }
        if with_avalanche and learner in AVALANCHE:
            peers["(c) Avalanche"] = avalanche(setting, AVALANCHE[learner])
        times: dict[str, list[float]] = {name: [] for name in peers}
        for repeat in range(repeats + 1):
            for name, run in peers.items():
                taken = run()
                if repeat:
                    times[name].append(1e3 * taken / setting.steps)
    for name, values in times.items():
        report.add(f"{setting.name} {learner}: {name}", values)
    for name, aim in (
        ("(a) bare loop", setting.most_bare),
        ("(c) Avalanche", setting.most_avalanche),
    ):
        if name in times:
            ratio = median(o / p for o, p in zip(times["ours"], times[name], strict=True))
            report.at_most(f"{setting.name} {learner} over {name}", ratio, aim)


def measure_relative(repeats: int) -> None:
    """Time a step of each learner, all in turn, and print it as a multiple of FineTuning's."""
    report = Report("step-relative", {"repeats": repeats, "threads": 1})
    names = ("FineTuning", *RELATIVE)
    for setting in SETTINGS:
        with TemporaryDirectory() as folder:
            runs = {name: ours(setting, name, Path(folder) / name) for name in names}
            times: dict[str, list[float]] = {name: [] for name in names}
            for repeat in range(repeats + 1):
                for name, run in runs.items():
                    taken = run()
                    if repeat:
                        times[name].append(taken)
        print(f"{setting.name + ', a step beside FineTuning':<44}   median       min       max")
        for name in RELATIVE:
            ratios = [a / b for a, b in zip(times[name], times["FineTuning"], strict=True)]
            report.add(f"{setting.name} {name}", ratios)
    report.finish()


# -- ours ------------------------------------------------------------------------------------------


def ours(setting: Setting, learner: str, folder: Path) -> Callable[[], float]:
    """Return what times an `Updater`, in seconds for as many steps as the setting has."""
    epochs = registry.learner_class(learner).min_epochs
    params = Params.parse(
        {
            "learner": learner,
            "update": {"number": 2, "parent": 1},
            "trainer": {"max_epochs": epochs, "deterministic": False},
        }
    )
    values = {
        "learning_rate": RATE,
        "batch_size": setting.batch,
        "memory_batch_size": setting.batch,
        "memory_size": MEMORY,
    }
    folder.mkdir(exist_ok=True)
    images, labels = setting.examples(setting.batch * setting.steps, 0)
    if learner == "iCaRL":  # which distils classes that do not come again
        labels = labels % 5
    new = write(folder / "new", images, labels)
    parent = parent_state(folder / "parent", setting, new)
    user = UserConfig(folder / "config.py", {"model_fn": lambda: setting.model_fn()})
    updater = Updater(user, params, values)

    def run() -> float:
        with TimedFit() as fit:
            updated = updater.update(UpdateData(parent, new))
        return fit.seconds * setting.steps / updated.steps

    return run


class TimedFit:
    """Takes the time of Lightning's `fit` within an update: the steps, not what is around them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._fit = fit = Trainer.fit

        def timed(*arguments: Any, **keywords: Any) -> None:
            started = time.perf_counter()
            fit(*arguments, **keywords)
            self.seconds = time.perf_counter() - started

        Trainer.fit = timed
        return self

    def __exit__(self, *_: object) -> None:
        Trainer.fit = self._fit


def write(folder: Path, images: Tensor, labels: Tensor, **metadata: np.ndarray) -> ExampleStore:
    """Write examples as `prepare` does."""
    with StoreWriter(folder, update=1) as writer:
        for start in range(0, len(labels), 4096):
            block = slice(start, start + 4096)
            beside = {name: values[block] for name, values in metadata.items()}
            writer.append((images[block].numpy(), labels[block].numpy()), beside)
    return ExampleStore.open(folder)


def parent_state(folder: Path, setting: Setting, new: ExampleStore) -> State:
    """Write a state with a full memory, logits beside each example, and a model."""
    from renate_stages.models.stored import write_model

    state.write_empty(folder)
    (folder / "memory" / "index.json").unlink()
    images, labels = setting.examples(MEMORY, 1)
    logits = np.zeros((MEMORY, 10), dtype=np.float32)
    write(folder / "memory", images, labels, logits=logits)
    torch.manual_seed(0)
    write_model(folder, setting.model_fn())  # type: ignore[arg-type]
    classes = tuple(range(10))
    state.write_manifest(folder, Provenance("update", 1, classes=classes, task_ids={"1": "a"}))
    return State.open(folder)


# -- peers -----------------------------------------------------------------------------------------


def bare(setting: Setting, learner: str, loaded: bool = False) -> Callable[[], float]:
    """Return what times the same steps in a plain loop.

    Args:
        setting: Model and data.
        learner: Whose loss.
        loaded: Whether examples come from DataLoaders rather than from indexed tensors.
    """
    images, labels = setting.examples(setting.batch * setting.steps, 0)
    memory = (*setting.examples(MEMORY, 1), torch.zeros(MEMORY, 10))
    model = setting.model_fn()
    teachers = [copy.deepcopy(model).eval() for _ in range(2)]
    loss_of = partial(LOSSES[learner], model=model, teachers=teachers)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    draws = {"ER": 1, "DER++": 2, "CLS-ER": 1, "LwF": 0}[learner]
    batches = loaded_batches if loaded else indexed_batches

    def run() -> float:
        started = time.perf_counter()
        for inputs, targets, drawn in batches((images, labels), memory, setting.batch, draws):
            optimizer.zero_grad()
            loss_of(inputs, targets, drawn).backward()
            optimizer.step()
            if learner == "CLS-ER":
                follow(teachers, model)
        return time.perf_counter() - started

    return run


Batches = Iterator[tuple[Tensor, Tensor, list[list[Tensor]]]]


def indexed_batches(new: Any, memory: Any, batch: int, draws: int) -> Batches:
    """Yield steps by indexing tensors."""
    order = torch.randperm(len(new[1]))
    for rows in order.tensor_split(-(-len(order) // batch)):
        drawn = []
        for _ in range(draws):
            places = torch.randint(len(memory[1]), (batch,))
            drawn.append([each[places] for each in memory])
        yield new[0][rows], new[1][rows], drawn


def loaded_batches(new: Any, memory: Any, batch: int, draws: int) -> Batches:
    """Yield steps from DataLoaders."""
    loaders = [
        endless(DataLoader(TensorDataset(*memory), batch, shuffle=True)) for _ in range(draws)
    ]
    for inputs, targets in DataLoader(TensorDataset(*new), batch, shuffle=True):
        yield inputs, targets, [next(each) for each in loaders]


def endless(loader: DataLoader) -> Iterator[list[Tensor]]:
    """Yield the batches of a loader again and again."""
    while True:
        yield from loader


def er_loss(inputs, targets, drawn, model, teachers) -> Tensor:
    """Mean loss over both batches."""
    ((images, labels, _),) = drawn
    return F.cross_entropy(model(torch.cat([inputs, images])), torch.cat([targets, labels]))


def der_loss(inputs, targets, drawn, model, teachers) -> Tensor:
    """New loss, logits of one draw, labels of another."""
    (dark, _, logits), (images, labels, _) = drawn
    loss = F.cross_entropy(model(inputs), targets)
    loss = loss + 0.3 * F.mse_loss(model(dark), logits)
    return loss + 0.5 * F.cross_entropy(model(images), labels)


def cls_loss(inputs, targets, drawn, model, teachers) -> Tensor:
    """Loss over both batches, and the distance to the surer teacher."""
    ((images, labels, _),) = drawn
    with torch.no_grad():
        stable, plastic = (teacher(images) for teacher in teachers)
        true = labels[:, None]
        surer = stable.softmax(1).gather(1, true) > plastic.softmax(1).gather(1, true)
        kept = torch.where(surer, stable, plastic)
    outputs = model(torch.cat([inputs, images]))
    loss = F.cross_entropy(outputs, torch.cat([targets, labels]))
    return loss + 0.1 * F.mse_loss(outputs[len(targets) :], kept)


def lwf_loss(inputs, targets, drawn, model, teachers) -> Tensor:
    """New loss, and the distance to what the old model says of the new examples."""
    with torch.no_grad():
        old = (teachers[0](inputs) / 2).softmax(1)
    outputs = model(inputs)
    distillation = F.kl_div((outputs / 2).log_softmax(1), old, reduction="batchmean")
    return F.cross_entropy(outputs, targets) + 4 * distillation


LOSSES = {"ER": er_loss, "DER++": der_loss, "CLS-ER": cls_loss, "LwF": lwf_loss}


@torch.no_grad()
def follow(teachers: list[nn.Module], model: nn.Module) -> None:
    """Let each teacher follow the model now and then."""
    for teacher, probability in zip(teachers, (0.7, 0.9), strict=True):
        if torch.rand(()) < probability:
            for average, current in zip(teacher.parameters(), model.parameters(), strict=True):
                average.mul_(0.999).add_(current, alpha=0.001)


def avalanche(setting: Setting, strategy: str) -> Callable[[], float]:
    """Return what times one experience of an Avalanche strategy, its memory full."""
    warnings.simplefilter("ignore")
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import (
        _make_taskaware_classification_dataset as task_aware,
    )
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin

    def dataset(rows: int, seed: int) -> Any:
        images, labels = setting.examples(rows, seed)
        tensors = TensorDataset(images, labels)
        return task_aware(tensors, targets=labels.tolist(), task_labels=[0] * rows)

    rows = setting.batch * setting.steps
    stream = benchmark_from_datasets(train=[dataset(MEMORY, 1), dataset(rows, 0)]).train_stream
    model = setting.model_fn()
    common: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=RATE),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": setting.batch,
        "train_epochs": 1,
        "evaluator": EvaluationPlugin(),
    }
    own: dict[str, dict[str, Any]] = {
        "Replay": {"mem_size": MEMORY},
        "DER": {
            "mem_size": MEMORY,
            "batch_size_mem": 2 * setting.batch,  # it takes one draw for both terms, the paper two
            "alpha": 0.3,
            "beta": 0.5,
        },
        "LwF": {"alpha": 1.0, "temperature": 2.0},
    }
    made = getattr(supervised, strategy)(**common, **own[strategy])
    made.train(stream[0])

    def run() -> float:
        # Each run is one more experience; what is timed are its iterations, of which there may be
        # more or fewer than steps: an epoch of Avalanche is as long as its longest loader.
        timer = IterationTimer()
        made.plugins.append(timer)
        made.train(stream[1])
        made.plugins.remove(timer)
        return timer.seconds / timer.steps * setting.steps

    return run


def IterationTimer() -> Any:  # noqa: N802 -- a class, made only where Avalanche is installed
    """Return a plugin that takes the time of the steps of an experience."""
    from avalanche.core import SupervisedPlugin

    class Timer(SupervisedPlugin):
        supports_distributed = False
        seconds = 0.0
        steps = 0

        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            self.steps += 1

        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            self.started = time.perf_counter()

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            self.seconds += time.perf_counter() - self.started

    return Timer()


if __name__ == "__main__":
    main()
