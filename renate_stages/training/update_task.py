"""The task of an update: named, inherited from the parent, or found in the data; and its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data import StoredDataset
from renate_stages.errors import (
    ChangedTaskError,
    PositiveLabelError,
    TargetsError,
    TaskFunctionsError,
)
from renate_stages.evaluation.evaluator import called, evaluation_mode, move
from renate_stages.models import RenateModule
from renate_stages.models.growth import ensure_outputs
from renate_stages.models.module import unwrap
from renate_stages.state import State
from renate_stages.tasks import AUTO, make_task, named
from renate_stages.tasks.classification import Classification
from renate_stages.tasks.detect import detect
from renate_stages.tasks.row_loss import RowLoss
from renate_stages.tasks.task import IGNORED, Task

ROWS = 32  # rows of the check before training; enough for two sizes of a batch
AT_ONCE = 65536  # targets to check at a time


class UpdateTask:
    """What targets and outputs of an update mean, and the loss.

    Args:
        wanted: `task` in params.yaml: a name, or `auto`.
        own_loss: The user's loss; None: the task's.
        task_id: The task id to call the model with.

    Raises:
        UnknownTaskNameError: If there is no such task.
        TaskFunctionsError: If the task needs a loss of the user.
        LossReductionError: If the user's loss is a sum.
    """

    def __init__(
        self, wanted: str, own_loss: Callable[[Any, Any], Tensor] | None, task_id: str
    ) -> None:
        self.wanted, self.own_loss, self.task_id = wanted, own_loss, task_id
        self.task: Task | None = None
        self.loss = RowLoss(Classification(), own_loss)  # until the task is known
        if task := named(wanted):
            self._take(task)

    @property
    def name(self) -> str | None:
        """Name of the task for the new state; None if no data has shown it."""
        if self.wanted != AUTO:
            return self.wanted
        return None if self.task is None else self.task.name

    def inherit(self, parent: State) -> None:
        """Take the task of the parent's state, if it has one.

        Raises:
            ChangedTaskError: If params.yaml names another task.
        """
        known = parent.provenance.task
        if known is not None and self.wanted not in (AUTO, known):
            raise ChangedTaskError(self.wanted, known)
        if known is not None and self.task is None:
            self._take(make_task(known))

    def find(self, model: RenateModule, dataset: Dataset) -> None:
        """Decide the task by a dataset's first rows, if it is not known yet.

        Args:
            model: The model.
            dataset: Examples with the test transforms; with none, nothing is decided.

        Raises:
            AmbiguousTaskError: If the rows do not show what targets and outputs mean.
        """
        if self.task is None and len(dataset):  # type: ignore[arg-type]
            self._detect(*self._first_batch(model, dataset))

    def make_room(
        self, model: RenateModule, dataset: Dataset, names: Sequence[str], declared: bool
    ) -> int | None:
        """Let a model grow to an output for each named label; new ones draw from torch's generator.

        Args:
            model: The model.
            dataset: New examples with the test transforms.
            names: Names of the labels.
            declared: Whether the user declared which number each name has.

        Returns:
            The number of outputs before; None if the task does not have an output for each label.

        Raises:
            OutputLayerError: If the model has fewer outputs, and cannot grow.
            OutputsError: If the outputs are not one tensor.
            PositiveLabelError: If the task is binary, and the order of the names is not declared.
        """
        self.find(model, dataset)
        assert self.task is not None
        if self.task.name == "binary" and not declared:
            raise PositiveLabelError(names)
        if not self.task.grows:
            return None
        task = self.task

        def outputs() -> Tensor:
            found, _ = self._first_batch(model, dataset)
            task.require_tensor_outputs(found, "logits with a column for each label")
            return found

        return ensure_outputs(unwrap(model), len(names), outputs, model.grow_outputs)

    def check(
        self,
        model: RenateModule,
        datasets: Mapping[str, StoredDataset],
        *,
        weighted: bool = False,
    ) -> None:
        """Check targets, outputs and loss before training.

        Args:
            model: The model.
            datasets: Datasets with the test transforms, by a name for messages. All targets that
                have no transform are checked, otherwise those of the first rows.
            weighted: Whether training calls the loss for rows with weights.

        Raises:
            TargetsError, OutputsError: If they are not what the task expects.
            LossReductionError, LossShapeError: If the loss is not one value per row or a mean.
            UnweightedLossError: If rows have weights, and the loss is not one value per row.
        """
        all_count = True
        for where, dataset in datasets.items():
            if not len(dataset):
                continue
            outputs, targets = self._first_batch(model, dataset)
            task = self.task or self._detect(outputs, targets)
            task.check(outputs, targets, where=where)
            with torch.inference_mode():
                self.loss.check(outputs, targets)
                if weighted:
                    self.loss.check_rows(outputs, targets)
            all_count &= check_targets(task, dataset, outputs, where)
        if all_count:
            self.loss.rows_count_equally()

    def _detect(self, outputs: Any, targets: Any) -> Task:
        task = detect(outputs, targets, own_loss=self.own_loss is not None)
        self._take(task)
        return task

    def _take(self, task: Task) -> None:
        if task.needs_loss_fn and self.own_loss is None:
            raise TaskFunctionsError(task.name, ["loss_fn"])
        self.task, self.loss = task, RowLoss(task, self.own_loss)

    def _first_batch(self, model: RenateModule, dataset: Dataset) -> tuple[Any, Any]:
        """Return outputs and targets of the first rows; the model's modes are restored."""
        rows = np.arange(min(ROWS, len(dataset)))  # type: ignore[arg-type]
        inputs, targets = dataset.__getitems__(rows)  # type: ignore[attr-defined]
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        with evaluation_mode(model, device):
            outputs = called(model, move(inputs, device), self.task_id)
            return outputs, move(targets, device)


def check_targets(task: Task, dataset: StoredDataset, outputs: Any, where: str) -> bool:
    """Check all stored targets of a dataset, if they have no transform and one shape.

    Args:
        task: What targets mean.
        dataset: The dataset.
        outputs: Outputs of a batch, for their shape.
        where: The dataset, for the message.

    Returns:
        Whether all targets were checked and none is ignored.

    Raises:
        TargetsError: If a target is not what the task expects; it names the row.
    """
    spec = dataset.store.spec
    field = spec.fields.get("targets") if spec else None
    if field is None or dataset.target_transform is not None or not isinstance(outputs, Tensor):
        return False
    if field.ragged and field.dtype.kind == "f" and task.name != "custom":
        found = "rows of different lengths, which would be padded with zeros that count,"
        expected = "as many values in each row, or integers, which are padded with -100"
        raise TargetsError(task.name, found, expected, where)
    column = dataset.store.column("targets")
    if not isinstance(column, np.ndarray):  # rows of different lengths
        return False
    all_count = True
    for start in range(0, len(column), AT_ONCE):
        targets = torch.from_numpy(np.array(column[start : start + AT_ONCE]))
        like = outputs[:1].cpu().expand(len(targets), *outputs.shape[1:])
        task.check(like, targets, start, where)
        all_count &= not bool((targets == IGNORED).any())
    return all_count
