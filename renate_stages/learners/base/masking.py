"""Mask the outputs of some classes without producing NaN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MASKED = -1e4  # exp is 0 in every precision, and unlike with -inf, a difference of two is not NaN


def mask_classes(outputs: Tensor, allowed: Sequence[int] | Tensor) -> Tensor:
    """Return a copy of the logits in which only the allowed classes take part in a softmax.

    Masked entries are -10,000 and have no gradient.

    Args:
        outputs: Logits `(B, K)`, any float dtype; outputs of another shape are returned unchanged.
        allowed: Labels in [0, K); others, such as ignored ones, are left out. If none is left,
            nothing is masked.
    """
    allowed = torch.as_tensor(allowed, dtype=torch.int64, device=outputs.device)
    allowed = allowed[(allowed >= 0) & (allowed < outputs.shape[-1])]
    if outputs.ndim != 2 or not len(allowed):
        return outputs
    mask = torch.ones(outputs.shape[1], dtype=torch.bool, device=outputs.device)
    mask[allowed] = False
    return outputs.masked_fill(mask, MASKED)
