"""Create selection policies by name, and convert memory sizes such as `20GB` to rows."""

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
        size: Maximum number of examples in the memory, >= 1; None for `infinite`.
        generator: Source of randomness.

    Raises:
        UnknownPolicyError: If there is no policy of this name.
        InvalidMemorySizeError: If `size` is missing or below 1.
    """
    if name not in POLICIES:
        raise UnknownPolicyError(name, POLICIES)
    return POLICIES[name](size, generator)


def size_in_bytes(size: str) -> int:
    """Return a size such as `20GB`, `1.5 GiB` or `500 MB` in bytes.

    Raises:
        InvalidMemorySizeError: If it does not have this form, or is below one byte.
    """
    match = _BYTES.fullmatch(size)
    count = int(float(match[1]) * UNITS[match[2].replace("k", "K")]) if match else 0
    if count < 1:
        raise InvalidMemorySizeError("reservoir", size)
    return count


def rows_of_size(size: int | str, nbytes: int, rows: int) -> int:
    """Return the maximum number of examples in a memory of a given size.

    Args:
        size: A number of examples, or a size in bytes such as `20GB`.
        nbytes: Bytes of the examples known so far, from which the mean size is computed.
        rows: Number of these examples.

    Raises:
        InvalidMemorySizeError: If the size is smaller than one example.
    """
    if isinstance(size, int):
        return size
    fitting = size_in_bytes(size) * rows // max(1, nbytes) if rows else 1
    if fitting < 1:
        raise InvalidMemorySizeError("reservoir", f"{size}, less than one example")
    return fitting
