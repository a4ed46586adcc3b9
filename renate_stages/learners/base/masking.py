"""Mask outputs of some classes without producing NaN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MASKED = -1e4  # its exponential is 0 in every precision; a difference of two is 0, never NaN


def mask_classes(outputs: Tensor, allowed: Sequence[int] | Tensor) -> Tensor:
    """Return logits in which only some classes take part in a softmax.

    Masked entries are -10,000 and have no gradient. Not in place: the logits given stay as they are.

    Args:
        outputs: Logits `(B, K)`, any float dtype.
        allowed: Labels in [0, K); without any, or for outputs that are no logits, nothing is masked.
    """
    allowed = torch.as_tensor(allowed, dtype=torch.int64, device=outputs.device)
    if outputs.ndim != 2 or not len(allowed):
        return outputs
    mask = torch.ones(outputs.shape[1], dtype=torch.bool, device=outputs.device)
    mask[allowed] = False
    return outputs.masked_fill(mask, MASKED)
