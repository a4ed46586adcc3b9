"""Pooled outputs of layers, and their distance (Douillard et al., "PODNet: Pooled Outputs Distillation
for Small-Tasks Incremental Learning", ECCV 2020, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.errors import ModelMismatchError

SMALL = 1e-2  # length of a change, relative to the outputs, below which its gradient shrinks
POOLINGS = ("pixel", "channel", "width", "height", "gap", "spatial")


def pooled(outputs: Tensor, pooling: str, normalize: bool = False) -> Tensor:
    """Return the squared outputs of a layer, summed as in the paper's section 3.1, `(B, P)` float32.

    Args:
        outputs: `(B, C, H, W)`, or `(B, F)`, whose squares are returned for any pooling.
        pooling: `pixel`: all values; `channel`, `height`, `width`: sums over this dimension; `gap`:
            means over height and width; `spatial`: those of `width` and `height` together.
        normalize: Whether each row is scaled to length 1.

    Raises:
        ModelMismatchError: If the outputs have another number of dimensions.
    """
    if outputs.ndim not in (2, 4):
        raise ModelMismatchError(
            "this learner distils outputs (B, F) or (B, C, H, W) of a layer, found "
            f"{tuple(outputs.shape)}",
            "hook layers with such outputs in model_fn",
        )
    sums = _summed(outputs.float().square(), pooling)
    return F.normalize(sums, dim=1) if normalize else sums


def distance(now: Tensor, kept: Tensor) -> Tensor:
    """Return the distance of each row, `(B,)`, rounded off near 0.

        sqrt(||now - kept||^2 + e^2) - e,   e = SMALL ||kept||

    The gradient of the distance itself has length 1 even if rounding alone makes it differ from 0,
    as in the first step of an update, when the model is still the one that the outputs are from.

    Args:
        now: `(B, P)`, float32.
        kept: `(B, P)`, float32.
    """
    small = (SMALL * torch.linalg.vector_norm(kept, dim=1)).clamp(min=1e-12)
    return ((now - kept).square().sum(1) + small.square()).sqrt() - small


def _summed(squares: Tensor, pooling: str) -> Tensor:
    if squares.ndim == 2 or pooling == "pixel":
        return squares.flatten(1)
    if pooling == "gap":
        return squares.mean((2, 3))
    if pooling == "spatial":
        return torch.cat([squares.sum(3).flatten(1), squares.sum(2).flatten(1)], dim=1)
    return squares.sum({"channel": 1, "height": 2, "width": 3}[pooling]).flatten(1)
