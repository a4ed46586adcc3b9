"""Runs of a benchmark in processes of one thread each, noted as they end; what their seeds tell."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import mnist
import torch

Digits = tuple[mnist.Images, mnist.Images]  # to train and to test on
Record = dict[str, Any]
Job = TypeVar("Job")

_datasets: dict[str, Digits]  # of a process, by name


def run(
    jobs: Sequence[Job],
    work: Callable[[Job, Digits], list[Record]],
    data: Path,
    processes: int,
    noted: Path,
    resume: bool,
    dataset_of: Callable[[Job], str] = lambda _: "mnist",
) -> Iterator[Record]:
    """Yield the records of each job as it ends, and note them.

    Args:
        jobs: That are still to be run.
        work: Runs one; a function of a module.
        data: Folder of the Parquet files.
        processes: How many jobs run at once.
        noted: File of records, a line each.
        resume: Whether its lines stay.
        dataset_of: Returns the name of a job's dataset, as `mnist.decode` takes it.
    """
    noted.parent.mkdir(exist_ok=True)
    with noted.open("a" if resume else "w", encoding="utf-8") as stream:
        for record in _in_processes(jobs, work, data, processes, dataset_of):
            print(json.dumps(record, sort_keys=True), file=stream, flush=True)
            yield record


def read(noted: Path) -> list[Record]:
    """Return the records that an earlier run noted; none where there was none."""
    if not noted.is_file():
        return []
    return [json.loads(line) for line in noted.read_text(encoding="utf-8").splitlines()]


def write_csv(path: Path, lines: Sequence[Record], first: Sequence[str]) -> None:
    """Write records as a table, and print where.

    Args:
        path: The file.
        lines: Its lines; a record may lack a column.
        first: The columns that come first; the others follow by name.
    """
    names = [*first, *sorted({name for line in lines for name in line} - {*first})]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(f"\n{path}")


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return that of independent values; without end where there is one."""
        if len(values) == 1:
            return cls(values[0], -math.inf, math.inf)
        from scipy.stats import t

        quantile = float(t.ppf(0.975, len(values) - 1))
        half = quantile * stdev(values) / math.sqrt(len(values))
        return cls(mean(values), mean(values) - half, mean(values) + half)

    @property
    def beyond(self) -> float:
        """How far it reaches from 0; 0 where it includes 0."""
        return 0.0 if self.low <= 0 <= self.high else max(abs(self.low), abs(self.high))

    @property
    def ends(self) -> str:
        """Both ends as text."""
        return f"{self.low:+.2f} to {self.high:+.2f}" if math.isfinite(self.low) else "one seed"


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation as text."""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _in_processes(
    jobs: Sequence[Job],
    work: Callable[[Job, Digits], list[Record]],
    data: Path,
    processes: int,
    dataset_of: Callable[[Job], str],
) -> Iterator[Record]:
    if not jobs:
        return
    with TemporaryDirectory() as folder:
        names = sorted({dataset_of(job) for job in jobs})
        folders = {name: mnist.decoded(data, Path(folder), name) for name in names}
        pool = ProcessPoolExecutor(
            processes, get_context("spawn"), initializer=_start, initargs=(folders,)
        )
        with pool:
            running = [pool.submit(_work, work, job, dataset_of(job)) for job in jobs]
            try:
                for each in as_completed(running):
                    yield from each.result()
            finally:
                pool.shutdown(cancel_futures=True)


def _start(folders: dict[str, Path]) -> None:
    """Prepare a process: one thread, the images mapped."""
    global _datasets
    torch.set_num_threads(1)
    _datasets = {name: mnist.load(folder) for name, folder in folders.items()}


def _work(work: Callable[[Job, Digits], list[Record]], job: Job, dataset: str) -> list[Record]:
    return work(job, _datasets[dataset])
