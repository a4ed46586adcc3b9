"""Compute the gradient of a batch's loss without changing the gradients of the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def batch_gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradient of a loss, and leave every `grad` as it is.

    If several processes share the batch, this is one process's part: the gradient over all examples
    is the mean over processes, as for `Learner.weighed`. DDP does not average it.

    Args:
        loss: A scalar, whose graph is freed.
        parameters: P weights in total.

    Returns:
        float32 `(P,)`, in the order of the parameters; 0 for weights that the loss does not use.
    """
    with torch.autocast(
        loss.device.type, enabled=False
    ):  # a backward pass has its forward's dtypes
        found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    parts = [
        torch.zeros_like(parameter) if each is None else each
        for parameter, each in zip(parameters, found, strict=True)
    ]
    return torch.cat([each.detach().float().flatten() for each in parts])


def split_like(vector: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return the parts of a vector `(P,)`, each of the shape of its parameter."""
    parts = vector.split([each.numel() for each in parameters])
    return [part.view_as(each) for part, each in zip(parts, parameters, strict=True)]
