"""Distributed training: ranks, their shares of rows, and collective operations.

Every process draws all rows of a step from the same named generators, and then takes its own,
contiguous share of them. So the batches of a step and the number of steps per epoch do not depend on
the number of processes. Only this module and `launch`, which starts the processes, use
torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Ranks(NamedTuple):
    """This process's rank, and the number of processes in the training.

    Args:
        rank: Rank of this process, from 0 on.
        count: Number of processes, >= 1.
    """

    rank: int = 0
    count: int = 1

    def bounds(self, rows: int, rank: int | None = None) -> tuple[int, int]:
        """Return start and stop of a rank's share of rows; shares differ by at most one row."""
        rank = self.rank if rank is None else rank
        return rank * rows // self.count, (rank + 1) * rows // self.count

    def own(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's share of rows, which may be empty if there are few rows."""
        first, last = self.bounds(len(rows))
        return rows[first:last]


def ranks() -> Ranks:
    """Return this process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def joined(accelerator: str) -> Iterator[Ranks]:
    """Join the process group that a launcher has described in the environment variables.

    Args:
        accelerator: Lightning's name of the accelerator; CPU tensors always use gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield ranks()
        return
    backend = "gloo"
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    yield ranks()
    dist.destroy_process_group()  # not after an error, because other processes may hang


def gathered(own: Any, rows: int) -> Any:
    """Gather rows from all processes, in the rows' order.

    Args:
        own: This process's share, a tensor `(B, ...)` or a tree of tensors. If the share is empty,
            a placeholder of the right shape except for B, which is ignored.
        rows: Number of rows over all processes.

    Returns:
        The same tree with tensors of `rows` rows, detached; scalars are returned unchanged.
    """
    here = ranks()
    if here.count == 1:
        return own
    sizes = [last - first for first, last in (here.bounds(rows, n) for n in range(here.count))]

    def whole(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or not tensor.ndim:
            return tensor
        tensor = tensor.detach()[: sizes[here.rank]]
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    return tree_map(whole, own)


def summed(own: Tensor) -> Tensor:
    """Return the sum over all processes, detached."""
    total = own.detach().clone()
    if ranks().count > 1:
        dist.all_reduce(total)
    return total


def averaged(own: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over all processes for each number; all have the same names."""
    count = ranks().count
    if count == 1 or not own:
        return dict(own)
    total = summed(torch.tensor(list(own.values()), dtype=torch.float64))
    return dict(zip(own, (total / count).tolist(), strict=True))


def values_of_all_ranks(own: Any) -> list[Any]:
    """Return the values of all processes by rank; allows only plain values and tensors."""
    values = [own] * ranks().count
    if len(values) > 1:
        dist.all_gather_object(values, own)
    return values


def value_of_rank_0(own: Any) -> Any:
    """Return the first process's value."""
    return values_of_all_ranks(own)[0]


@torch.no_grad()
def copy_from_rank_0(module: nn.Module, *, buffers_only: bool = False) -> None:
    """Copy a module's tensors from the first process, to remove differences between processes."""
    if ranks().count == 1:
        return
    for tensor in [*([] if buffers_only else module.parameters()), *module.buffers()]:
        dist.broadcast(tensor.data, src=0)
