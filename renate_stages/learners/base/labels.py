"""Check that targets are class labels of the model's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data import StoredDataset
from renate_stages.errors import ClassLabelsNeededError, LabelOutOfRangeError


def class_labels(targets: Any, learner: str, outputs: int) -> Tensor:
    """Return targets as class labels, int64 `(B,)` on the CPU.

    Args:
        targets: The targets of a batch.
        learner: Name of the learner that needs labels, for the message.
        outputs: K; labels are in [0, K).

    Raises:
        ClassLabelsNeededError: If the targets are not class labels.
        LabelOutOfRangeError: If a label is outside [0, K).
    """
    if not isinstance(targets, Tensor):
        raise ClassLabelsNeededError(learner, f"of type {type(targets).__name__}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ClassLabelsNeededError(learner, str(targets.dtype).removeprefix("torch."))
    if targets.ndim != 1:
        raise ClassLabelsNeededError(learner, f"of shape {tuple(targets.shape[1:])} each")
    labels = targets.cpu().long()
    outside = labels[(labels < 0) | (labels >= outputs)]
    if len(outside):
        raise LabelOutOfRangeError(int(outside[0]), outputs)
    return labels


def check_labels(dataset: StoredDataset, learner: str, outputs: int) -> None:
    """Check a dataset's labels before training; with a target transform, only the first label.

    Args:
        dataset: The examples with their test transforms.
        learner: Name of the learner that needs labels, for the message.
        outputs: K; labels are in [0, K).

    Raises:
        ClassLabelsNeededError: If targets are not class labels.
        LabelOutOfRangeError: If a label is outside [0, K).
    """
    if not len(dataset):
        return
    class_labels(dataset.__getitems__(np.arange(1))[1], learner, outputs)
    labels = dataset.labels() if dataset.target_transform is None else None
    if labels is not None:
        class_labels(torch.from_numpy(labels), learner, outputs)
