"""Let tensors about a parent's weights follow a model that has grown for new labels or codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def with_new_rows(
    left: Mapping[str, Tensor], own: Mapping[str, Tensor], grown: Iterable[str]
) -> dict[str, Tensor]:
    """Return the parent's tensors, with rows for the outputs or codes that the model has gained.

    Args:
        left: The parent's tensors by name; a name ends in that of a weight, with dots or slashes.
        own: Tensors of the same names, from which the new rows are taken.
        grown: Names of the weights that may have gained rows.
    """
    return {
        name: extended(each, own[name]) if name in own and is_grown(name, grown) else each
        for name, each in left.items()
    }


def is_grown(name: str, grown: Iterable[str]) -> bool:
    """Return whether a tensor's name ends in that of a weight that may have gained rows."""
    dotted = f".{name}".replace("/", ".")
    return any(dotted.endswith(f".{weight}") for weight in grown)


def extended(rows: Tensor, own: Tensor) -> Tensor:
    """Return rows followed by those that only `own` has; unchanged if other dimensions differ."""
    if not rows.ndim or rows.shape[1:] != own.shape[1:] or len(rows) >= len(own):
        return rows
    return torch.cat([rows, own[len(rows) :].detach().to(rows)])
