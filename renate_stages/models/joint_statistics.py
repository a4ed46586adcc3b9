"""Batch norm over the joint batch of all processes, with the same result as in one process.

PyTorch's SyncBatchNorm works only on GPUs and counts every row, including the placeholder row of a
process whose share is empty.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class JointStatistics:
    """Makes batch-norm layers use mean and variance over all processes, until `end` is called.

    Names, parameters, running statistics and evaluation mode of the layers do not change.

    Args:
        model: The model in training; every process must run the same number of batches through it,
            in the same order.
    """

    def __init__(self, model: nn.Module) -> None:
        self.left_out: list[int] = []  # rows of the current batch to leave out of the statistics
        self._layers = [each for each in model.modules() if isinstance(each, _BatchNorm)]
        for layer in self._layers:
            vars(layer)["forward"] = partial(self._normalise, layer)

    def end(self) -> None:
        """Make each layer use its own process's batch again."""
        for layer in self._layers:
            del layer.forward

    def _normalise(self, layer: Any, inputs: Tensor) -> Tensor:
        if not layer.training:
            return type(layer).forward(layer, inputs)
        layer._check_input_dim(inputs)
        shape = [1, -1, *[1] * (inputs.ndim - 2)]  # shape of per-channel values
        others = [0, *range(2, inputs.ndim)]
        values = inputs.float() if inputs.dtype in (torch.half, torch.bfloat16) else inputs
        counted = values
        if self.left_out:
            counted = values[np.delete(np.arange(len(values)), self.left_out)]
        number = values.new_tensor([counted.numel() / values.shape[1]])
        sums = _Summed.apply(torch.cat([counted.sum(others), number]))
        mean, count = sums[:-1] / sums[-1].detach(), float(sums[-1].detach())
        if count <= 1:
            raise ValueError(
                "batch norm expects more than 1 value per channel in training, over all processes"
            )
        variance = _Summed.apply(((counted - mean.view(shape)) ** 2).sum(others)) / count
        self._follow(layer, mean.detach(), variance.detach(), count)
        result = (values - mean.view(shape)) * (variance + layer.eps).rsqrt().view(shape)
        if layer.affine:
            result = result * layer.weight.view(shape) + layer.bias.view(shape)
        return result.to(inputs.dtype)

    @staticmethod
    @torch.no_grad()
    def _follow(layer: Any, mean: Tensor, variance: Tensor, count: float) -> None:
        """Update the running statistics like `nn.BatchNorm2d`."""
        if layer.running_mean is None:
            return
        layer.num_batches_tracked += 1
        momentum = layer.momentum
        if momentum is None:
            momentum = 1 / float(layer.num_batches_tracked)
        layer.running_mean.lerp_(mean.to(layer.running_mean), momentum)
        unbiased = variance * (count / max(1.0, count - 1))
        layer.running_var.lerp_(unbiased.to(layer.running_var), momentum)


class _Summed(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
