"""Time of measuring a model on every past update's holdout: `make bench NAME=evaluation`.

50 holdouts of 2,000 CIFAR-sized images in stores, a small CNN, 256 images a forward pass. Beside our
evaluator, which gives the loss, the accuracy and what the model says of each row, in turn on each
holdout, so that what else the machine does falls on all alike:

    (a) the forward passes alone, on float batches that lie ready in memory
    (b) a plain loop over a DataLoader for each holdout, an example at a time as people write it

The images are random: their values cost no time. Processor time of one thread is taken: all data are
in the page cache, nothing waits, and a machine that is busy with other things distorts it less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from report import Report
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from renate_stages.data import Batched, StoredDataset
from renate_stages.evaluation.evaluator import examine
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import SmallCNN

ROWS = 2000
BATCH = 256
MOST_BARE = 1.1


def main() -> None:
    """Time the evaluator and its peers in turn, after a warm-up of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 holdouts in place of 50")
    holdouts = 10 if parser.parse_args().quick else 50
    repeats = 3
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SmallCNN(num_channels=3, num_outputs=10, width=16)
    settings = {"holdouts": holdouts, "rows": ROWS, "repeats": repeats, "threads": 1, "seed": 0}
    report = Report("evaluation", settings)
    with TemporaryDirectory() as folder:
        stores = {n: write(Path(folder) / str(n), seed=n) for n in range(1, holdouts + 1)}
        check(model, stores[1])
        times = measure(model, stores, repeats)
    print(f"{f'milliseconds a holdout of {ROWS} rows':<44}   median       min       max")
    for name, values in times.items():
        report.add(name, [1e3 * value for value in values])
    bare_times = times["(a) bare forward passes"]
    ratio = median(o / p for o, p in zip(times["ours"], bare_times, strict=True))
    report.at_most("ours over (a) bare forward passes", ratio, MOST_BARE)
    report.finish()


def measure(
    model: SmallCNN, stores: Mapping[int, ExampleStore], repeats: int
) -> dict[str, list[float]]:
    """Return the processor seconds of each contestant for every holdout of every repeat."""
    contestants: dict[str, Callable[[ExampleStore], object]] = {
        "ours": lambda store: ours(model, store),
        "(a) bare forward passes": bare(model, stores[1]),
        "(b) loop over DataLoaders": lambda store: loop(model, store),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run(stores[1])
    for turn, store in enumerate([*stores.values()] * repeats):
        names = list(contestants)
        first = turn % len(names)  # who comes first finds caches as the one before left them
        for name in names[first:] + names[:first]:
            run = contestants[name]
            started = time.process_time()
            run(store)
            times[name].append(time.process_time() - started)
    return times


def write(folder: Path, seed: int) -> ExampleStore:
    """Write a holdout of random images, uint8 `(3, 32, 32)`, as `prepare` does."""
    generator = np.random.default_rng(seed)
    with StoreWriter(folder, update=seed) as writer:
        images = generator.integers(0, 256, (ROWS, 3, 32, 32), dtype=np.uint8)
        writer.append((images, generator.integers(0, 10, ROWS)))
    return ExampleStore.open(folder)


def to_unit_range(images: Tensor) -> Tensor:
    """The test transform."""
    return images.float() / 255


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss for each row, as the template's `loss_fn`."""
    return F.cross_entropy(outputs, targets, reduction="none")


def ours(model: SmallCNN, store: ExampleStore) -> Mapping[str, float]:
    """Measure as an update does."""
    dataset = StoredDataset(store, None, Batched(to_unit_range))
    return examine(model, {1: dataset}, loss_fn=losses, batch_size=BATCH)[1].metrics


def bare(model: SmallCNN, store: ExampleStore) -> Callable[[ExampleStore], None]:
    """Return what puts ready batches through the model: those of one holdout, for all alike."""
    batches = to_unit_range(torch.from_numpy(store.column("inputs"))).split(BATCH)

    def run(_: ExampleStore) -> None:
        model.eval()
        with torch.inference_mode():
            for batch in batches:
                model(batch)

    return run


class Images(Dataset):
    """One example at a time, with a transform, as people write it."""

    def __init__(self, store: ExampleStore) -> None:
        self.images, self.labels = store.column("inputs"), store.column("targets")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_unit_range(torch.from_numpy(self.images[index])), int(self.labels[index])


def loop(model: nn.Module, store: ExampleStore) -> Mapping[str, float]:
    """Measure loss and accuracy with a loop over a DataLoader."""
    model.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for images, labels in DataLoader(Images(store), batch_size=BATCH):
            outputs = model(images)
            loss += float(losses(outputs, labels).sum())
            right += int((outputs.argmax(1) == labels).sum())
    return {"loss": loss / len(store), "accuracy": right / len(store)}


def check(model: SmallCNN, store: ExampleStore) -> None:
    """Refuse to time contestants that do not find the same."""
    found, expected = ours(model, store), loop(model, store)
    if any(abs(found[name] - value) > 1e-6 for name, value in expected.items()):
        raise SystemExit(f"not the same: ours {dict(found)}, the loop {dict(expected)}")


if __name__ == "__main__":
    main()
