"""The selection policies by name, and memory sizes such as `20GB`."""

from __future__ import annotations

import re

import numpy as np

from renate_stages.errors import InvalidMemorySizeError, UnknownPolicyError
from renate_stages.memory.balancing import ClassBalancedReservoir, GreedyClassBalancing
from renate_stages.memory.herding import Herding
from renate_stages.memory.selection import Infinite, Reservoir, SelectionPolicy, SlidingWindow

POLICIES: dict[str, type[SelectionPolicy]] = {
    policy.name: policy
    for policy in (
        Reservoir,
        ClassBalancedReservoir,
        GreedyClassBalancing,
        Herding,
        SlidingWindow,
        Infinite,
    )
}

UNITS = {
    **{name: 1000**power for power, name in enumerate(("B", "KB", "MB", "GB", "TB"))},
    **{name: 1024**power for power, name in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kKMGT]i?B|B)")


def make_policy(name: str, size: int | None, generator: np.random.Generator) -> SelectionPolicy:
    """Return the policy with this name.

    Args:
        name: One of `POLICIES`.
        size: Most examples the memory may hold, >= 1; None for `infinite`.
        generator: Source of randomness.

    Raises:
        UnknownPolicyError: There is no such policy.
        InvalidMemorySizeError: `size` is missing or below 1.
    """
    if name not in POLICIES:
        raise UnknownPolicyError(name, POLICIES)
    return POLICIES[name](size, generator)


def size_in_bytes(size: str) -> int:
    """Return how many bytes a size such as `20GB`, `1.5 GiB` or `500 MB` is.

    Raises:
        InvalidMemorySizeError: If it is no such size, or below one byte.
    """
    found = _BYTES.fullmatch(size)
    count = int(float(found[1]) * UNITS[found[2].replace("k", "K")]) if found else 0
    if count < 1:
        raise InvalidMemorySizeError("reservoir", size)
    return count


def rows_of_size(size: int | str, nbytes: int, rows: int) -> int:
    """Return how many examples a memory of a size may hold.

    Args:
        size: A number of examples, or bytes as `size_in_bytes` reads them.
        nbytes: Bytes of the examples at hand.
        rows: Their number: together they say how large an example is on average.

    Raises:
        InvalidMemorySizeError: If not one example has room.
    """
    if isinstance(size, int):
        return size
    fitting = size_in_bytes(size) * rows // max(1, nbytes) if rows else 1
    if fitting < 1:
        raise InvalidMemorySizeError("reservoir", f"{size}, less than one example")
    return fitting
