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
"""The step batches of an epoch; iterated again, those of the next one."""


def step_loader(
    steps: Steps,
    rows: EpochRows,
    generator: torch.Generator,
    *,
    num_workers: int = 0,
    prefetch: int = 0,
    device: torch.device | None = None,
) -> StepLoader:
    """Return the step batches of an epoch; iterated again, those of the next one.

    Args:
        steps: Reads them.
        rows: Says which.
        generator: Source of the workers' seeds; drawn from once an epoch.
        num_workers: Processes that read ahead, transforms included; 0 reads in this one.
        prefetch: Steps that a thread of this process reads ahead, where there are no workers.
        device: That batches are read for; to a GPU they go through pinned memory. None: they are
            read where they stay.
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
    """Let the workers of several processes augment their shares each in its own way."""
    if rank:
        seed = (torch.initial_seed() + rank * 0x9E3779B97F4A7C15) % 2**64  # far from all others
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
