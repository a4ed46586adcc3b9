"""Rows per second of reading new data: `make bench NAME=prepare`.

Each form of a dataset is written to a store as `prepare` does, with ids and index. Beside it, in the
same run and alternating, runs a bare loop over the dataset's items (`for n in range(len(d)): d[n]`) and
a PyTorch DataLoader in batches of 256; neither stores anything. Seconds are those of this process on
the CPU, so other programs on the machine disturb little. For images, whose blocks a thread stores
while the next is read, and with worker processes (`data.num_workers`), they are those of the clock,
and need two cores that nothing else uses.

    images     JPEG files of 96x96 pixels, decoded and resized for each item, as vision datasets do
    files      the same files, read by the data module `images`; the bare loop only decodes each once
    rows       20 numbers as a dict, and an integer label
    frame      the same, with each row from `frame.iloc` of pandas, as tables are often read
    records    a tensor of 20 numbers, a label, and metadata: an id and a source
    columns    the same as `rows`, with and without metadata, as a `ColumnDataset`
    tensors    a `TensorDataset`
    table      a Parquet file of 20 numbers; see prepare_tables.py, also for its memory
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from prepare_tables import measure_tables
from report import Report
from torch.utils.data import DataLoader, Dataset, TensorDataset

from renate_stages.data import ColumnDataset, ingest
from renate_stages.data.modules import images as modules
from renate_stages.tasks.labels import LabelNames

FIELDS = 20
BATCH = 256


class Images(Dataset):
    """JPEG files in a folder, decoded and resized.

    Args:
        folder: Folder to write the files to.
        number: Number of files.
    """

    def __init__(self, folder: Path, number: int) -> None:
        noise = np.random.default_rng(0)
        folder.mkdir()
        self.files = [folder / f"{n}.jpg" for n in range(number)]
        for file in self.files:
            small = noise.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(small).resize((96, 96)).save(file, quality=90)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[row]) as image:
            pixels = np.array(image.convert("RGB").resize((64, 64)))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), row % 10


class Rows(Dataset):
    """A dict of numbers and a label for each row.

    Args:
        columns: The numbers by name, float32 `(rows,)`.
        labels: int64 `(rows,)`.
    """

    def __init__(self, columns: dict[str, np.ndarray], labels: np.ndarray) -> None:
        self.columns, self.labels = columns, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[dict[str, Any], int]:
        return {name: each[row] for name, each in self.columns.items()}, int(self.labels[row])


class Frame(Rows):
    """The same of a pandas DataFrame, row by row."""

    def __init__(self, columns: dict[str, np.ndarray], labels: np.ndarray) -> None:
        super().__init__(columns, labels)
        self.frame = pd.DataFrame({n: each[: len(labels)] for n, each in columns.items()})

    def __getitem__(self, row: int) -> tuple[dict[str, Any], int]:
        return {str(n): each for n, each in self.frame.iloc[row].items()}, int(self.labels[row])


class Records(Rows):
    """A tensor, a label and metadata for each row."""

    def __getitem__(self, row: int) -> Any:
        inputs = torch.from_numpy(self.matrix[row])
        return inputs, int(self.labels[row]), {"id": f"customer-{row}", "source": "ab"[row % 2]}

    @property
    def matrix(self) -> np.ndarray:
        if not hasattr(self, "_matrix"):
            self._matrix = np.stack(list(self.columns.values()), axis=1)
        return self._matrix


def main() -> None:
    """Measure all forms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, three repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows, repeats = (20_000, 3) if quick else (200_000, 5)
    report = Report("prepare", {"rows": rows, "repeats": repeats, "threads": 1})
    noise = np.random.default_rng(0)
    columns = {f"c{n}": noise.random(rows, dtype=np.float32) for n in range(FIELDS)}
    labels = noise.integers(0, 10, rows)
    metadata = {
        "id": [f"customer-{n}" for n in range(rows)],
        "source": ["ab"[n % 2] for n in range(rows)],
    }
    few = {name: each[: rows // 5] for name, each in columns.items()}
    print(f"{'rows per second':<44}   median       min       max")
    with TemporaryDirectory() as folder:
        images = Images(Path(folder) / "one class", 3000)
        share = measure(report, "images", images, repeats, bare=True, seconds=time.perf_counter)
        report.at_least("images: share of the bare loop", share, 0.9)
        _, faster = measure_workers(report, "images", images, repeats)
        report.at_least("images: speed of 2 workers, of 1", faster, 1.7)
        measure_files(report, Path(folder), images.files, repeats)
    dataset = Rows(few, labels[: rows // 5])
    measure(report, "rows", dataset, repeats, bare=True)
    measure_workers(report, "rows", dataset, repeats)
    frame = Frame(few, labels[: rows // 5])
    share = measure(report, "frame", frame, repeats, bare=True)
    report.at_least("frame: share of the bare loop", share, 0.9)
    measure(report, "records", Records(few, labels[: rows // 5]), repeats, bare=True)
    measure(report, "columns with metadata", ColumnDataset(columns, labels, metadata), repeats)
    measure(report, "columns", ColumnDataset(columns, labels), repeats)
    tensors = torch.from_numpy(np.stack(list(columns.values()), axis=1)), torch.from_numpy(labels)
    measure(report, "tensors", TensorDataset(*tensors), repeats)
    speed = median(report.values["tensors: ours"])
    report.at_least("tensors: rows per second", speed, 500_000)
    measure_tables(report, rows, repeats, quick=quick)
    report.finish()


def measure(
    report: Report,
    name: str,
    dataset: Any,
    repeats: int,
    bare: bool = False,
    seconds: Callable[[], float] = time.process_time,
) -> float:
    """Time one form and its peers in turn; return the bare loop's seconds as a share of ours."""
    peers: dict[str, Callable[[], object]] = {"ours": lambda: stored(dataset)}
    if bare:
        peers["bare loop"] = lambda: [dataset[row] and None for row in range(len(dataset))]
        peers["DataLoader"] = lambda: [None for _ in DataLoader(dataset, BATCH)]
    return _timed(report, name, peers, len(dataset), repeats, seconds)


def measure_files(report: Report, folder: Path, files: list[Path], repeats: int) -> float:
    """Time the data module `images`, and decoding each file once; return as `measure`."""

    def ours() -> None:
        module = modules.Images(folder)
        module.setup()
        stored(module.train_data(), numbers=LabelNames().numbers)

    def bare() -> None:
        for file in files:
            with Image.open(file) as image:
                image.load()

    return _timed(report, "files", {"ours": ours, "bare loop": bare}, len(files), repeats)


def _timed(
    report: Report,
    name: str,
    peers: dict[str, Callable[[], object]],
    rows: int,
    repeats: int,
    seconds: Callable[[], float] = time.process_time,
) -> float:
    """Time peers in turn; return the bare loop's seconds as a share of ours, 0 without one."""
    taken: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(repeats):
        for peer, run in peers.items():
            started = seconds()
            run()
            taken[peer].append(seconds() - started)
    for peer, each_run in taken.items():
        report.add(f"{name}: {peer}", [rows / each for each in each_run])
    if "bare loop" not in taken:
        return 0.0
    return median(b / o for b, o in zip(taken["bare loop"], taken["ours"], strict=True))


def measure_workers(report: Report, name: str, dataset: Any, repeats: int) -> tuple[float, float]:
    """Time a bare loop, and reading with 1 and 2 worker processes, in turn, by the clock.

    Returns:
        The bare loop's seconds as a share of those of 2 workers; the seconds of 1 worker divided by
        those of 2.
    """
    peers: dict[str, Callable[[], object]] = {
        "bare loop, by the clock": lambda: [dataset[row] and None for row in range(len(dataset))],
        "1 worker": lambda: stored(dataset, 1),
        "2 workers": lambda: stored(dataset, 2),
    }
    taken: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(repeats):
        for peer, run in peers.items():
            started = time.perf_counter()
            run()
            taken[peer].append(time.perf_counter() - started)
    for peer, seconds in taken.items():
        report.add(f"{name}: {peer}", [len(dataset) / each for each in seconds])
    bare, one, two = taken.values()
    return (
        median(b / t for b, t in zip(bare, two, strict=True)),
        median(o / t for o, t in zip(one, two, strict=True)),
    )


def stored(dataset: Any, num_workers: int = 0, **options: Any) -> None:
    """Write a dataset to a store in a temporary folder."""
    with TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        ingest(dataset, store, 1, "train", num_workers=num_workers, **options)


if __name__ == "__main__":
    main()
