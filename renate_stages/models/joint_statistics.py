"""Batch norm over the joint batch of all processes, as one process would compute it.

PyTorch's SyncBatchNorm does the same on GPUs alone, and counts every row: one that stands in for a
process's empty share would count too.
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
    """Lets a model's batch-norm layers take mean and variance over all processes, until `end`.

    The layers stay what they are: names, parameters, running statistics, evaluation mode.

    Args:
        model: In training; every process puts as many batches through it, in the same order.
    """

    def __init__(self, model: nn.Module) -> None:
        self.left_out: list[int] = []  # rows of the batch on its way that count for no statistics
        self._layers = [each for each in model.modules() if isinstance(each, _BatchNorm)]
        for layer in self._layers:
            vars(layer)["forward"] = partial(self._normalise, layer)

    def end(self) -> None:
        """Let each layer look at its own process's batch again."""
        for layer in self._layers:
            del layer.forward

    def _normalise(self, layer: Any, inputs: Tensor) -> Tensor:
        if not layer.training:
            return type(layer).forward(layer, inputs)
        layer._check_input_dim(inputs)
        shape = [1, -1, *[1] * (inputs.ndim - 2)]  # of what is one number a channel
        others = [0, *range(2, inputs.ndim)]
        values = inputs.float() if inputs.dtype in (torch.half, torch.bfloat16) else inputs
        counted = values
        if self.left_out:
            counted = values[np.delete(np.arange(len(values)), self.left_out)]
        number = values.new_tensor([counted.numel() / values.shape[1]])
        sums = _Summed.apply(torch.cat([counted.sum(others), number]))
        mean, count = sums[:-1] / sums[-1].detach(), float(sums[-1].detach())
        if count <= 1:
            raise ValueError("expected more than 1 value a channel in training, over all processes")
        variance = _Summed.apply(((counted - mean.view(shape)) ** 2).sum(others)) / count
        self._follow(layer, mean.detach(), variance.detach(), count)
        found = (values - mean.view(shape)) * (variance + layer.eps).rsqrt().view(shape)
        if layer.affine:
            found = found * layer.weight.view(shape) + layer.bias.view(shape)
        return found.to(inputs.dtype)

    @staticmethod
    @torch.no_grad()
    def _follow(layer: Any, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics, as `nn.BatchNorm2d` does."""
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
    """The sum over all processes; so each one's gradient is the sum of all processes' gradients."""

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
