"""Mean features of classes, of examples in memory: for learners with a nearest-mean head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import StoredDataset
from renate_stages.learners.base import Learner
from renate_stages.learners.base.labels import check_labels
from renate_stages.learners.base.working_memory import BLOCK
from renate_stages.memory import Selection
from renate_stages.models import RenateModule
from renate_stages.models.features import features_of
from renate_stages.models.module import unwrap


def exemplars(learner: Learner, selection: Selection) -> list[StoredDataset]:
    """Return selected rows of the learner's memory and new data, with their test transforms."""
    transforms = learner.context.functions.test_transforms
    pairs = zip((learner.memory, learner.new), selection, strict=True)
    return [StoredDataset(each.store, _rows(each, rows), *transforms) for each, rows in pairs]


def check_class_labels(learner: Learner, name: str, *datasets: StoredDataset) -> None:
    """Check, before training, that the labels fit the model's nearest-mean head.

    Args:
        learner: The learner, whose model has such a head.
        name: Its name, for the message.
        datasets: The new data and the memory.

    Raises:
        ClassLabelsNeededError: If targets are not class labels.
        LabelOutOfRangeError: If a label has no output.
    """
    head: Any = unwrap(learner.model).head
    for dataset in datasets:
        transforms = learner.context.functions.test_transforms
        measured = StoredDataset(dataset.store, dataset.rows, *transforms)
        check_labels(measured, name, head.linear.out_features)


@torch.no_grad()
def exemplar_means(
    model: RenateModule, parts: Sequence[StoredDataset], task_id: str
) -> dict[int, Tensor]:
    """Return the mean feature of each class's examples, normalized to length 1, `(F,)`.

    Args:
        model: The model; its mode is restored.
        parts: The examples, with their test transforms; the labels are the targets.
        task_id: Task whose parameters are used.
    """
    features: list[Tensor] = []
    labels: list[Tensor] = []
    for part in parts:
        for start in range(0, len(part), BLOCK):
            inputs, targets = part.__getitems__(range(start, min(start + BLOCK, len(part))))
            features.append(features_of(model, inputs, task_id))
            labels.append(targets.long().cpu())
    if not features:
        return {}
    unit = F.normalize(torch.cat(features), dim=1)
    all_labels = torch.cat(labels)
    return {
        label: F.normalize(unit[all_labels == label].mean(0), dim=0)
        for label in all_labels.unique().tolist()
        if label >= 0
    }


def _rows(dataset: StoredDataset, chosen: np.ndarray) -> np.ndarray:
    return chosen if dataset.rows is None else dataset.rows[chosen]
