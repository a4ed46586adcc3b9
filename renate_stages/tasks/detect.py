"""Decide which task a batch of outputs and targets belongs to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renate_stages.errors import AmbiguousTaskError
from renate_stages.tasks import make_task
from renate_stages.tasks.task import IGNORED, Task, is_whole, outline


def detect(outputs: Any, targets: Any, *, own_loss: bool = False) -> Task:
    """Return the task of a batch.

    ==========================  ====================  ==============
    targets                     outputs               task
    ==========================  ====================  ==============
    integers `(B,)`             `(B, K)`, K >= 2      classification
    0 and 1, `(B,)`, `(B, 1)`   `(B,)`, `(B, 1)`      binary
    0 and 1, `(B, L)`, integers `(B, L)`, L >= 2      multilabel
    integers `(B, T)`           `(B, T, K)`           tokens
    floats                      as many values        regression
    not one tensor              anything              custom
    no task fits                anything              custom, with a loss of the user
    ==========================  ====================  ==============

    Args:
        outputs: The model's outputs for the batch.
        targets: The targets of the batch.
        own_loss: Whether the user defines a loss.

    Raises:
        AmbiguousTaskError: If the batch could belong to several tasks, or to none.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return make_task("custom")
    name = _name(outputs, targets)
    candidates = _candidates(outputs, targets)
    if name is None and (candidates or not own_loss):
        raise AmbiguousTaskError(outline(outputs), outline(targets), candidates)
    return make_task(name or "custom")


def _name(outputs: Tensor, targets: Tensor) -> str | None:
    whole = is_whole(targets) or targets.dtype == torch.bool
    if targets.is_floating_point():
        if outputs[0].numel() != targets[0].numel() or _is_zero_one(targets):
            return None
        return "regression"
    if not whole:
        return None
    shape, one = tuple(targets.shape[1:]), ((), (1,))
    if shape == () and outputs.ndim == 2 and outputs.shape[1] >= 2:
        return "classification"
    if shape in one and tuple(outputs.shape[1:]) in one:
        return "binary" if _is_zero_one(targets) else None
    if len(shape) == 1 and outputs.ndim == 3 and outputs.shape[1] == shape[0]:
        return "tokens"
    if outputs.shape == targets.shape and targets.ndim == 2 and _is_zero_one(targets):
        return "multilabel"
    return None


def _is_zero_one(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1) | (targets == IGNORED)).all())


def _candidates(outputs: Tensor, targets: Tensor) -> list[str]:
    """Return the tasks that could be meant."""
    found = ["regression"] if outputs[0].numel() == targets[0].numel() else []
    if _is_zero_one(targets) and found:
        found.insert(0, "binary" if outputs[0].numel() == 1 else "multilabel")
    elif found and targets.ndim == 2 and targets.shape[1] > 1:
        found.append("ranking")
    return found
