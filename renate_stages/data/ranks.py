"""The processes that share one training: ranks, shares of rows, and collective operations.

A step's rows are drawn from named generators, which every process has and draws from alike; each then
takes its own share of them, the ranks' shares one after the other in the order of the draw. So the
batches of a step, and how many steps an epoch has, do not depend on how many processes there are.
The only module that speaks to torch.distributed, beside `launch`, which starts the processes.
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
    """A process among those that share a training.

    Args:
        rank: Its number, from 0 on.
        count: How many there are; 1: it is alone.
    """

    rank: int = 0
    count: int = 1

    def bounds(self, rows: int, rank: int | None = None) -> tuple[int, int]:
        """Return where a rank's share of so many rows begins and ends; shares differ by one row."""
        rank = self.rank if rank is None else rank
        return rank * rows // self.count, (rank + 1) * rows // self.count

    def own(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's share of rows; none where there are fewer rows than processes."""
        first, last = self.bounds(len(rows))
        return rows[first:last]


def ranks() -> Ranks:
    """Return which process this is."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


@contextmanager
def joined(accelerator: str) -> Iterator[Ranks]:
    """Meet the other processes that a launcher has started, as it told each in the environment.

    Args:
        accelerator: As Lightning names it; tensors on CPUs are exchanged by gloo in any case.
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
    dist.destroy_process_group()  # not after an error: others may wait for ever


def gathered(own: Any, rows: int) -> Any:
    """Return what all processes have of some rows, in the rows' order.

    Args:
        own: This process's share, a tensor `(B, ...)` or a tree of them; where the share is empty,
            anything of the right shape but for B, which is left out.
        rows: How many there are over all processes.

    Returns:
        The same tree with tensors of `rows` rows, detached; a scalar stays as it is.
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
    """Return the mean over all processes of numbers that each has by the same names."""
    count = ranks().count
    if count == 1 or not own:
        return dict(own)
    total = summed(torch.tensor(list(own.values()), dtype=torch.float64))
    return dict(zip(own, (total / count).tolist(), strict=True))


def of_all(own: Any) -> list[Any]:
    """Return what each process has, by rank: plain values and tensors, never of foreign classes."""
    found = [own] * ranks().count
    if len(found) > 1:
        dist.all_gather_object(found, own)
    return found


def of_the_first(own: Any) -> Any:
    """Return what the first process has."""
    return of_all(own)[0]


@torch.no_grad()
def take_from_the_first(module: nn.Module, *, buffers_only: bool = False) -> None:
    """Set a module's tensors to those of the first process, where rounding or statistics differ."""
    if ranks().count == 1:
        return
    for tensor in [*([] if buffers_only else module.parameters()), *module.buffers()]:
        dist.broadcast(tensor.data, src=0)
