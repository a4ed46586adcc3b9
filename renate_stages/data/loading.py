"""Batch loading: inline, by a background thread, or by worker processes."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from renate_stages.data.ahead import Ahead
from renate_stages.data.ranks import ranks
from renate_stages.data.steps import EpochRows, InProcess, Steps

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
        generator: Source of the workers' seeds; used once per epoch.
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
    return DataLoader(
        steps,
        batch_size=None,
        sampler=rows,  # pyright: ignore[reportArgumentType]
        generator=generator,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=for_gpu,
        collate_fn=_as_it_is,
        worker_init_fn=partial(_seed_worker, steps.ranks.rank),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _seed_worker(rank: int, _: int) -> None:
    """Seed loader workers differently in each process, so that augmentations differ."""
    if rank:
        seed = (
            torch.initial_seed() + rank * 0x9E3779B97F4A7C15
        ) % 2**64  # far from other ranks' seeds
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
