"""Compare our learners with Renate's own classes.

    make bench NAME=renate DATA=<folder> ARGS="--renate <folder>"

DATA contains `cifar10-train.parquet`, `cifar10-test.parquet` and the same of MNIST; `--renate` is where
`uv pip install --no-deps --target <folder> renate==0.5.2` put the package (see `renate_classes.py`).
Both sides get the same data, the same initial weights and the hyperparameters of Renate's quick suite
(`suites/quick-*.yaml`), without augmentation. Ours goes the way of production: each update is a
`Updater` on stores of examples, and its state is written to disk and read by the next. Renate's
classes run in a plain loop.

The figure is the mean accuracy on both updates' test sets after the second update, in percent. The
difference is paired by seed, with its 95 % interval (Student's t); an aim is met if that includes 0, or
if ours is better. `--quick` has three seeds and 500 training rows of each class.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import mnist
import numpy as np
import production
import torch
from mnist import Images
from production import DigitsMLP, Split
from report import RESULTS, Report
from runs import Interval
from torch.utils.data import Dataset, TensorDataset

from renate_stages.data import RenateDataModule
from renate_stages.models import RenateModule
from renate_stages.randomness import Generators
from renate_stages.scenarios import (
    ClassIncrementalScenario,
    FeatureSortingScenario,
    IIDScenario,
    Scenario,
)

SEEDS, QUICK_SEEDS, QUICK_ROWS, MARGIN = 10, 3, 500, 1.0
RATE, BATCH, MEMORY, HOLDOUT = 0.01, 256, 500, 200
REPLAY = {"memory_size": MEMORY, "memory_batch_size": BATCH}
THEIR_REPLAY = {"memory_size": MEMORY, "batch_size": 2 * BATCH, "batch_memory_frac": 0.5}
ONLINE = {**REPLAY, "memory_update": "online"}
PLAIN = {"loss_normalization": 0, "loss_weight": 0.5}


class Row(NamedTuple):
    """A learner on one scenario.

    Args:
        dataset: `cifar10` or `mnist`.
        scenario: `classes`, `features` or `iid`.
        learner: Our name.
        theirs: A key of `renate_classes.CLASSES`.
        own: Our hyperparameters, apart from optimizer and batch size.
        their_own: Arguments of Renate's class.
        reset: Whether Renate's command line starts each update from new weights.
    """

    dataset: str
    scenario: str
    learner: str
    theirs: str
    own: Mapping[str, Any]
    their_own: Mapping[str, Any]
    reset: bool = False

    @property
    def label(self) -> str:
        """The name of the row in the table."""
        return f"{self.dataset} {self.scenario} {self.learner}"

    @property
    def epochs(self) -> int:
        """Passes over the new data, as in Renate's scenario files."""
        return 5 if self.scenario == "classes" else 3


ROWS = (
    Row("cifar10", "classes", "ER", "ER", ONLINE, {**THEIR_REPLAY, **PLAIN, "alpha": 0.5}),
    Row(
        "cifar10",
        "classes",
        "Offline-ER",
        "Offline-ER",
        {**REPLAY, "loss_weight_new_data": 0.5},
        {**THEIR_REPLAY, "loss_weight_new_data": 0.5},
    ),
    Row(
        "mnist", "classes", "CLS-ER", "CLS-ER", ONLINE, {**THEIR_REPLAY, "alpha": 0.5, "beta": 0.1}
    ),
    Row("mnist", "classes", "GDumb", "GDumb", REPLAY, THEIR_REPLAY, reset=True),
    Row(
        "cifar10",
        "features",
        "DER++",
        "DER",
        {**ONLINE, "alpha": 0.2, "beta": 0.5, "loss_weight": 0.5},
        {**THEIR_REPLAY, **PLAIN, "alpha": 0.2, "beta": 0.5},
    ),
    Row("mnist", "iid", "FineTuning", "FineTuning", {}, {"batch_size": BATCH}),
    Row("mnist", "iid", "Joint", "Joint", {}, {"batch_size": BATCH}, reset=True),
)
INPUTS = {"cifar10": 3 * 32 * 32, "mnist": 28 * 28}


class Job(NamedTuple):
    """One row with one seed."""

    row: Row
    seed: int
    arrays: Path
    renate: Path
    rows_per_class: int | None


def main() -> None:
    """Run all rows with all seeds; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--renate", type=Path, required=True, help="folder of the package renate")
    parser.add_argument("--quick", action="store_true", help="few rows and seeds")
    parser.add_argument("--seeds", type=int, help=f"how many, from 0 on ({SEEDS})")
    asked = parser.parse_args()
    seeds = asked.seeds or (QUICK_SEEDS if asked.quick else SEEDS)
    rows_per_class = QUICK_ROWS if asked.quick else None
    arrays = {name: mnist.decoded(asked.data, RESULTS / "arrays", name) for name in INPUTS}
    jobs = [
        Job(row, seed, arrays[row.dataset], asked.renate, rows_per_class)
        for row in ROWS
        for seed in range(seeds)
    ]
    report = Report(f"renate{'-quick' if asked.quick else ''}", {"seeds": seeds})
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        results = list(pool.map(run, jobs))
    print(f"\n{'':<32}{'ours':>8}{'Renate':>8}{'difference':>12}   95 % interval")
    lines = []
    for row in ROWS:
        found = [each for job, each in zip(jobs, results, strict=True) if job.row is row]
        ours, theirs = zip(*found, strict=True)
        gap = Interval.of([one - other for one, other in found])
        means = f"{np.mean(ours):>8.2f}{np.mean(theirs):>8.2f}{gap.mean:>+12.2f}"
        print(f"{row.label:<32}{means}   {gap.ends}")
        report.at_least(f"{row.label}: upper end of ours - Renate's, points", gap.high, -MARGIN)
        lines += [
            {"row": row.label, "seed": seed, "ours": one, "renate": other}
            for seed, (one, other) in enumerate(found)
        ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{report.name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    report.finish()


def run(job: Job) -> tuple[float, float]:
    """Return our accuracy and that of Renate's class, in percent."""
    torch.set_num_threads(1)
    parts = [_part(job, number) for number in range(2)]
    return _ours(job, parts), _theirs(job, parts)


class _Whole(RenateDataModule):
    """The whole dataset, flat images as uint8."""

    def __init__(self, folder: Path, rows_per_class: int | None) -> None:
        super().__init__(folder)
        self.rows_per_class = rows_per_class

    def setup(self) -> None:
        train, test = mnist.load(Path(self._data_path))
        self._train_data = _tensors(train, self.rows_per_class)
        self._test_data = _tensors(test, None)


def _tensors(images: Images, most: int | None) -> TensorDataset:
    chosen = [np.flatnonzero(images.labels == label)[:most] for label in range(10)]
    rows = np.sort(np.concatenate(chosen))
    pixels = torch.from_numpy(images.inputs[rows].copy())
    pixels = pixels.movedim(-1, 1) if pixels.ndim == 4 else pixels[:, None]
    return TensorDataset(pixels.contiguous(), torch.from_numpy(images.labels[rows]))


def _part(job: Job, number: int) -> tuple[Images, Images]:
    """Return training and test images of an update."""
    module = _Whole(job.arrays, job.rows_per_class)
    scenarios: dict[str, Scenario] = {
        "classes": ClassIncrementalScenario(module, number, [[0, 1], [2, 3]]),
        "features": FeatureSortingScenario(module, 2, 0, 0.0, number),
        "iid": IIDScenario(module, 2, number, job.seed),
    }
    scenario = scenarios[job.row.scenario]
    scenario.setup()
    return _images(scenario.train_data()), _images(scenario.test_data())


def _images(data: Dataset | None) -> Images:
    assert data is not None, "both splits are there"
    items = [data[row] for row in range(len(data))]  # pyright: ignore[reportArgumentType]
    inputs = torch.stack([item[0] for item in items]).flatten(1)
    return Images(inputs.numpy(), np.array([int(item[1]) for item in items]))


def _model(job: Job) -> RenateModule:
    """Return the model with the weights that our first update starts from."""
    Generators(job.seed, 1).seed_global("model")
    return DigitsMLP(INPUTS[job.row.dataset], 10, hidden_size=(200, 200))


def _ours(job: Job, parts: list[tuple[Images, Images]]) -> float:
    def model_fn(model_state_url: str | None = None) -> RenateModule:
        size = INPUTS[job.row.dataset]
        return production.stored_or(model_state_url, DigitsMLP, size, 10, hidden_size=(200, 200))

    user = production.user_of(model_fn)
    values = {"optimizer": "Adam", "learning_rate": RATE, "batch_size": BATCH, **job.row.own}
    with TemporaryDirectory() as folder:
        source = None
        for number, (train, test) in enumerate(parts, start=1):
            target = Path(folder) / f"state-{number}"
            data = Split(train, test.at(slice(HOLDOUT)))
            production.update(
                user, job.row.learner, values, data, source, target, job.seed, job.row.epochs
            )
            source = target
        assert source is not None
        return _accuracy(production.model_of(user, values, source), parts)


def _theirs(job: Job, parts: list[tuple[Images, Images]]) -> float:
    import renate_classes

    if "renate" not in sys.modules:
        renate_classes.load(job.renate)
    model = _model(job)
    torch.manual_seed(job.seed)
    settings = {**job.row.their_own, "seed": job.seed}
    side = renate_classes.RenateSide(job.row.theirs, model, RATE, job.row.epochs, settings)
    for number, (train, _) in enumerate(parts):
        if number and job.row.reset:
            model.load_state_dict(_model(job).state_dict())
        side.update(TensorDataset(torch.from_numpy(train.inputs), torch.from_numpy(train.labels)))
    return _accuracy(model.eval(), parts)


def _accuracy(model: RenateModule, parts: list[tuple[Images, Images]]) -> float:
    return float(np.mean([production.accuracy(model, test) for _, test in parts]))


if __name__ == "__main__":
    main()
