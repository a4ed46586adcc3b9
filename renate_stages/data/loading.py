"""Batch loading: inline, by a background thread, or by worker processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from renate_stages.data.ahead import Ahead
from renate_stages.data.ranks import ranks
from renate_stages.data.steps import EpochRows, InProcess, StepBatch, StepRows, Steps

StepLoader = DataLoader | InProcess | Ahead
"""An iterable of step batches; each iteration is one epoch."""


def step_loader(
    steps: Steps,
    rows: EpochRows,
    generator: torch.Generator,
    *,
    num_workers: int = 0,
    prefetch: int = 0,
    device: torch.device | None = None,
) -> StepLoader:
    """Return a loader of step batches; each iteration over it is one epoch.

    Args:
        steps: Reads the steps.
        rows: Chooses the rows of each step.
        generator: Source of the seeds of steps that workers read; used once for each step.
        num_workers: Number of processes that read ahead and apply transforms; 0 reads in this
            process.
        prefetch: Number of steps that a thread of this process reads ahead if there are no workers.
        device: Device for which batches are read; for a GPU they go through pinned memory. None if
            they are not moved.
    """
    steps.ranks = ranks()
    for_gpu = device is not None and device.type == "cuda"
    if prefetch and not num_workers and isinstance(rows, EpochRows):
        return Ahead(steps, rows, prefetch, device if for_gpu else None)
    if not num_workers and not for_gpu:
        return InProcess(steps, rows)
    if not num_workers:
        return _data_loader(steps, rows, pin_memory=for_gpu)
    return _data_loader(
        _SeededSteps(steps),
        _SeededRows(rows, generator),
        num_workers=num_workers,
        persistent_workers=True,
        pin_memory=for_gpu,
    )


class _SeededRows:
    """Rows of steps, each with a seed for what workers draw at random when they read the step.

    A worker that kept one generator over all of its steps would give other draws after an
    interruption, and with another number of workers.
    """

    def __init__(self, rows: EpochRows, generator: torch.Generator) -> None:
        self._rows, self._generator = rows, generator

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[StepRows, int]]:
        for rows in self._rows:
            yield rows, int(torch.randint(2**63 - 1, (), generator=self._generator))


class _SeededSteps(Dataset):
    """Reads steps in a worker, where global generators are only used by transforms."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __getitem__(self, drawn: tuple[StepRows, int]) -> StepBatch:
        rows, seed = drawn
        # Seeds of other ranks are far away, so that their augmentations differ.
        seed = (seed + self._steps.ranks.rank * 0x9E3779B97F4A7C15) % 2**64
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return self._steps[rows]


def _data_loader(steps: Dataset, rows: Any, **options: Any) -> DataLoader:
    """Return a loader whose items are whole steps."""
    return DataLoader(
        steps,
        batch_size=None,
        sampler=rows,
        generator=torch.Generator(),  # of seeds that are not used; else it draws from the global one
        collate_fn=_as_it_is,
        **options,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
