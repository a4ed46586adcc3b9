"""Rows per second and peak memory of reading tables; `prepare.py` calls it.

A table has 20 numeric columns of float64 and a target. `ours` is the data module `table` with everything
that `prepare` does for each row: reading, checking, ids, and writing a store.

    table: ours                  from Parquet
    table: ours, from CSV        the same rows
    table: DataLoader            a PyTorch dataset over the same Parquet, which returns a row as a tensor and a
                                 target, read in batches of 256; nothing is checked or stored
    table: bare loop             the same dataset without a DataLoader
    table: datasets.map          `datasets`, where it is installed: read, converted to float32, and written to
                                 its cache

The peak memory is that of a fresh process which does the work of `ours`, with torch and all else that it
imports; it is measured with `resource.getrusage`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv, parquet
from report import Report, is_installed
from torch.utils.data import DataLoader, Dataset

from renate_stages.data import ingest
from renate_stages.data.modules.table import Table

FIELDS = 20
BATCH = 256
CHUNK = 500_000  # rows to make at once
MEMORY_ROWS = 5_000_000
MEMORY = 2000.0  # MB
SPEED = 500_000  # rows per second


class Rows(Dataset):
    """The plain way: read the file at once, return a row.

    Args:
        path: The Parquet file.
    """

    def __init__(self, path: Path) -> None:
        table = parquet.read_table(path)
        columns = [table[f"c{n}"].to_numpy() for n in range(FIELDS)]
        self.inputs = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        self.targets = torch.from_numpy(table["target"].to_numpy().astype(np.float32))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[row], self.targets[row]


def measure_tables(report: Report, rows: int, repeats: int, *, quick: bool) -> None:
    """Time a table and its peers in turn, then measure the memory of a fresh process.

    Args:
        report: Gets the figures and aims.
        rows: Rows of the table that is timed.
        repeats: How often each peer runs.
        quick: Whether to measure memory with a tenth of the rows, and without its aim.
    """
    with TemporaryDirectory() as made:
        folder = Path(made)
        for form in ("parquet", "csv"):
            (folder / form).mkdir()
        path = folder / "parquet" / "a.parquet"
        write_table(path, rows)
        csv.write_csv(parquet.read_table(path), folder / "csv" / "a.csv")
        peers: dict[str, Callable[[], object]] = {
            "ours": lambda: stored(folder / "parquet"),
            "ours, from CSV": lambda: stored(folder / "csv"),
            "DataLoader": lambda: [None for _ in DataLoader(Rows(path), BATCH)],
            "bare loop": lambda: each_row(Rows(path)),
        }
        if is_installed("datasets"):
            peers["datasets.map"] = lambda: mapped(path)
        taken: dict[str, list[float]] = {peer: [] for peer in peers}
        stored(folder / "parquet")  # the first time imports modules
        for _ in range(repeats):
            for peer, run in peers.items():
                started = time.process_time()
                run()
                taken[peer].append(time.process_time() - started)
        for peer, seconds in taken.items():
            report.add(f"table: {peer}", [rows / each for each in seconds])
    report.at_least("table: rows per second", median(report.values["table: ours"]), SPEED)
    with TemporaryDirectory() as made:
        large = MEMORY_ROWS // 10 if quick else MEMORY_ROWS
        write_table(Path(made) / "a.parquet", large)
        name = f"table: MB with {large / 1e6:g} million rows"
        report.add(name, [peak_memory(Path(made))])
        if not quick:
            report.at_most(name, report.values[name][0], MEMORY)


def write_table(path: Path, rows: int) -> None:
    """Write random numbers as Parquet."""
    noise = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        columns = {f"c{n}": noise.normal(size=count) for n in range(FIELDS)}
        table = pa.table({**columns, "target": noise.normal(size=count)})
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def stored(folder: Path) -> None:
    """Read a table as `prepare` does, and write it to a store in a temporary folder."""
    module = Table(folder, target="target", task="regression")
    module.setup()
    with TemporaryDirectory() as made:
        ingest(module.train_data(), Path(made) / "store", 1, "train")


def each_row(dataset: Dataset) -> None:
    """Read each row of a dataset."""
    for row in range(len(dataset)):  # pyright: ignore[reportArgumentType]
        dataset[row]


def mapped(path: Path) -> None:
    """Read a table with `datasets`, convert its rows, and write them to its cache."""
    import datasets

    with TemporaryDirectory() as cache:
        data = datasets.load_dataset("parquet", data_files=str(path), cache_dir=cache)
        data["train"].map(
            lambda rows: {name: np.asarray(each, np.float32) for name, each in rows.items()},
            batched=True,
        )


def peak_memory(folder: Path) -> float:
    """Return the peak memory, in MB, of a fresh process that reads and stores a table."""
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout)


if __name__ == "__main__":
    import resource

    torch.set_num_threads(1)
    stored(Path(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
