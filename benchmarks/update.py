"""Wall time of one whole update: `make bench NAME=update DATA=<folder>`.

An MLP 784-200-10 that knows 27,500 digits of MNIST takes in 27,500 more by experience replay: one
epoch, 32 new and 32 remembered examples a step, a memory of 5,000. Ours is `run_training_job` from
one state on disk to the next. Beside it, in the same run, a bare PyTorch loop does the same: it reads
model, memory and data, all arrays of NumPy, measures, trains, measures again, and writes model,
memory and holdout. Each run is a fresh process.

Imports are timed as they happen, wherever they happen, and reported apart; the aim is for the time
without them. Renate 0.5.2 took 15.4 s for such an update on a machine of two cores, and left 11,003
files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renate_stages.data import RenateDataModule
    from renate_stages.models import RenateModule

ROWS, VALIDATION, TEST, MEMORY, BATCH = 27_500, 500, 1000, 5000, 32
RATE = 0.1
AIM = 1.5


def main() -> None:
    """Prepare data and the states to start from; time both, in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the Parquet files")
    parser.add_argument("--quick", action="store_true", help="two repeats instead of seven")
    parser.add_argument("--inside", nargs=3, metavar=("WHO", "FOLDER", "TARGET"))
    arguments = parser.parse_args()
    if arguments.inside:
        who, folder, target = arguments.inside
        run_inside(who, Path(folder), Path(target))
        return
    if arguments.data is None:
        parser.error("give the folder with the Parquet files by --data")
    from report import Report

    repeats = 2 if arguments.quick else 7
    report = Report("update", {"repeats": repeats, "threads": 1, "seed": 0})
    names = {"ours": "run_training_job", "bare": "bare loop"}
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in names}
    with TemporaryDirectory() as folder:
        prepare(arguments.data, Path(folder))
        for who in runs:  # the update before, and the warm-up
            fresh_process(who, Path(folder), Path(folder) / f"{who}-1")
        for repeat in range(repeats):
            for who, found in runs.items():
                found.append(fresh_process(who, Path(folder), Path(folder) / f"{who}-2-{repeat}"))
    print(f"{'':<44}   median       min       max")
    for what in ("seconds without imports", "seconds of imports", "files left", "megabytes left"):
        for who, name in names.items():
            report.add(f"{name}: {what}", [run[what] for run in runs[who]])
    for who, name in names.items():
        report.add(f"{name}: accuracy, %", [run["accuracy"] for run in runs[who]])
    what = "seconds without imports"
    ratio = median(a[what] / b[what] for a, b in zip(runs["ours"], runs["bare"], strict=True))
    report.at_most("run_training_job over the bare loop, without imports", ratio, AIM)
    report.finish()


def prepare(data: Path, folder: Path) -> None:
    """Write the arrays of two updates, `train`, `val` and `test` of each."""
    import mnist
    import numpy as np

    mnist.decode(data, folder)
    train, test = mnist.load(folder)
    for number in (1, 2):
        first = (number - 1) * (ROWS + VALIDATION)
        parts = {
            "train": train.at(slice(first, first + ROWS)),
            "val": train.at(slice(first + ROWS, first + ROWS + VALIDATION)),
            "test": test.at(slice((number - 1) * TEST, number * TEST)),
        }
        week = folder / f"data-{number}"
        week.mkdir()
        for split, images in parts.items():
            np.save(week / f"{split}-images.npy", images.inputs)
            np.save(week / f"{split}-labels.npy", images.labels)


def fresh_process(who: str, folder: Path, target: Path) -> dict[str, float]:
    """Run one update; return its times in seconds, its accuracy, and what it left."""
    command = [sys.executable, "-W", "ignore", __file__, "--inside", who, str(folder), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    left = [path for path in target.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in left) / 1e6
    return {**found, "files left": len(left), "megabytes left": size}


# -- in the fresh process --------------------------------------------------------------------------


def run_inside(who: str, folder: Path, target: Path) -> None:
    """Run an update and print a line of JSON: seconds with and without imports, and accuracy."""
    number = int(target.name.split("-")[1])
    source = folder / f"{who}-1" if number > 1 else None
    imports = ImportClock()
    started = time.perf_counter()
    import torch

    torch.set_num_threads(1)
    run = {"ours": ours, "bare": bare}[who]
    accuracy = run(folder / f"data-{number}", source, target)
    taken = time.perf_counter() - started
    found = {"seconds without imports": taken - imports.seconds, "accuracy": 100 * accuracy}
    print(json.dumps({**found, "seconds of imports": imports.seconds}))


class ImportClock:
    """Adds up the time in which modules are loaded, in this thread or another.

    The interpreter calls `_find_and_load` for each module that is not there yet; a module's own
    imports are within its time.
    """

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0
        bootstrap: Any = sys.modules["_frozen_importlib"]
        self._load = bootstrap._find_and_load
        bootstrap._find_and_load = self._timed

    def _timed(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        self._depth += 1
        try:
            return self._load(*arguments)
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - started


def ours(data: Path, source: Path | None, target: Path) -> float:
    """Update with `run_training_job`; this file is its configuration."""
    from renate_stages import run_training_job

    hyperparameters = {
        "learning_rate": RATE,
        "batch_size": BATCH,
        "memory_batch_size": BATCH,
        "memory_size": MEMORY,
    }
    result = run_training_job(
        hyperparameters,
        updater="ER",
        max_epochs=1,
        config_file=__file__,
        data_path=data,
        input_state_url=source,
        output_state_url=target,
    )
    return result.metrics["accuracy"]["average"]


def data_module_fn(data_path: str) -> RenateDataModule:
    """Return images, uint8 `(28, 28)`, and labels: a function of the configuration."""
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    from renate_stages.data import RenateDataModule

    class Digits(RenateDataModule):
        def setup(self) -> None:
            self._train_data, self._val_data, self._test_data = (
                TensorDataset(
                    *(
                        torch.from_numpy(np.load(self._data_path / f"{split}-{what}.npy"))
                        for what in ("images", "labels")
                    )
                )
                for split in ("train", "val", "test")
            )

    return Digits(data_path)


def model_fn(model_state_url: str | None = None) -> RenateModule:
    """Return the MLP, new or as it was: a function of the configuration."""
    import torch

    from renate_stages.models import MLP

    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
    return MLP(784, 10, num_hidden_layers=1, hidden_size=200)


def train_transform() -> Any:
    """Return what makes floats of bytes: a function of the configuration."""
    from renate_stages.data import Batched

    return Batched(lambda images: images.float() / 255)


test_transform = train_transform


def bare(data: Path, source: Path | None, target: Path) -> float:
    """Do the same in one loop. Names are of the arrays' files."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    def read(folder: Path, name: str) -> tuple[Tensor, Tensor]:
        images, labels = (np.load(folder / f"{name}-{what}.npy") for what in ("images", "labels"))
        return torch.from_numpy(images), torch.from_numpy(labels)

    def write(name: str, images: Tensor, labels: Tensor) -> None:
        np.save(target / f"{name}-images.npy", images.numpy())
        np.save(target / f"{name}-labels.npy", labels.numpy())

    def scaled(images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255

    def accuracy(images: Tensor, labels: Tensor) -> float:
        with torch.inference_mode():
            found = [model(scaled(part)).argmax(1) for part in images.split(256)]
        return float((torch.cat(found) == labels).float().mean())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))
    (images, labels), val, test = (read(data, split) for split in ("train", "val", "test"))
    holdouts, memory, seen = [test], (images[:0], labels[:0]), 0
    if source is not None:
        model.load_state_dict(torch.load(source / "model.pt", weights_only=True))
        holdouts.append(read(source, "holdout"))
        memory = read(source, "memory")
        seen = int(np.load(source / "seen.npy"))
    for holdout in holdouts:
        accuracy(*holdout)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for rows in torch.randperm(len(labels)).tensor_split(-(-len(labels) // BATCH)):
        inputs, targets = images[rows], labels[rows]
        if len(memory[1]):
            drawn = torch.randint(len(memory[1]), (BATCH,))
            inputs = torch.cat([inputs, memory[0][drawn]])
            targets = torch.cat([targets, memory[1][drawn]])
        loss = F.cross_entropy(model(scaled(inputs)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy(*val)
    found = [accuracy(*holdout) for holdout in holdouts]

    filled = min(MEMORY - len(memory[1]), len(labels))
    kept = [
        torch.cat([old, new[:filled]]) for old, new in zip(memory, (images, labels), strict=True)
    ]
    places = (
        torch.rand(len(labels) - filled) * torch.arange(seen + filled, seen + len(labels))
    ).long()
    for row, place in enumerate(places.tolist(), start=filled):
        if place < MEMORY:
            kept[0][place], kept[1][place] = images[row], labels[row]
    target.mkdir()
    torch.save(model.state_dict(), target / "model.pt")
    write("memory", *kept)
    write("holdout", *test)
    np.save(target / "seen.npy", seen + len(labels))
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
