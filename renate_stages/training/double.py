"""Training in float64 (`trainer.precision: 64-true`), for a state in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from renate_stages.learners.base import Learner
from renate_stages.models import RenateModule

PRECISION = "64-true"


@contextmanager
def double_precision(learner: Learner) -> Iterator[None]:
    """Train a learner in float64 in the block, and make its tensors float32 again afterwards.

    Inputs become float64, whatever reads them. Outputs in evaluation mode become float32, because
    metrics and stored fields compare them with float32 values.

    Args:
        learner: The learner, whose data has been set. Lightning converts its weights in `fit`.
    """
    models = [each for each in learner.modules() if isinstance(each, RenateModule)]  # and averages
    hooks = [each.register_forward_pre_hook(_widen_inputs, with_kwargs=True) for each in models]
    hooks += [each.register_forward_hook(_narrow_outputs) for each in models]
    learner.double()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        learner.float()


def widened(tree: Any) -> Any:
    """Return a tree of tensors with its floating-point tensors in float64."""
    return tree_map_only(Tensor, partial(_cast, to=torch.float64), tree)


def _cast(tensor: Tensor, to: torch.dtype) -> Tensor:
    return tensor.to(to) if tensor.is_floating_point() else tensor


def _widen_inputs(module: nn.Module, arguments: Any, named: Any) -> Any:
    return widened(arguments), named


def _narrow_outputs(module: nn.Module, arguments: Any, outputs: Any) -> Any:
    if module.training:
        return None
    return tree_map_only(Tensor, partial(_cast, to=torch.float32), outputs)
