"""Look at a dataset's first rows and at all its targets, before training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data import StoredDataset
from renate_stages.evaluation.evaluator import called, evaluation_mode, move
from renate_stages.models import RenateModule
from renate_stages.tasks.task import Task

ROWS = 32  # enough for a check on two sizes of a batch
AT_ONCE = 65536  # targets to check at a time


def first_batch(model: RenateModule, dataset: Dataset, task_id: str) -> tuple[Any, Any]:
    """Return outputs and targets of a dataset's first rows, in evaluation mode.

    Args:
        model: The model; modes and device are restored.
        dataset: A dataset whose `__getitems__` returns a batch, with at least one row.
        task_id: The task to call the model with.
    """
    rows = np.arange(min(ROWS, len(dataset)))  # type: ignore[arg-type]
    inputs, targets = dataset.__getitems__(rows)  # type: ignore[attr-defined]
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    with evaluation_mode(model, device):
        return called(model, move(inputs, device), task_id), move(targets, device)


def check_targets(task: Task, dataset: StoredDataset, outputs: Any) -> None:
    """Check all stored targets of a dataset, if they have no transform and one shape.

    Args:
        task: What targets mean.
        dataset: The dataset.
        outputs: Outputs of a batch, for their shape.

    Raises:
        TargetsError: If a target is not what the task expects; it names the row.
    """
    spec = dataset.store.spec
    field = spec.fields.get("targets") if spec else None
    if field is None or dataset.target_transform is not None or not isinstance(outputs, Tensor):
        return
    column = dataset.store.column("targets")
    if not isinstance(column, np.ndarray):  # rows of different lengths
        return
    for start in range(0, len(column), AT_ONCE):
        targets = torch.from_numpy(np.array(column[start : start + AT_ONCE]))
        task.check(outputs[:1].expand(len(targets), *outputs.shape[1:]), targets, start)
