"""Present stores of examples as Avalanche's datasets.

Rows are numbered across the parent's memory and the new data, the memory first. Every dataset that
Avalanche derives from one (a subset, a buffer) keeps these row numbers. So the state can record
which examples a strategy holds without storing them.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset
from avalanche.benchmarks.utils.data import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute, TensorDataAttribute
from avalanche.benchmarks.utils.flat_data import FlatData
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data import StoredDataset
from renate_stages.data.stored import Batched, Transform, decoding

ROW = "renate_row"  # the data attribute with the numbers of rows
_STANDARD = {ROW, "targets", "targets_task_labels"}


class Stored(NamedTuple):
    """An example's stored inputs, and whether it belongs to this update's new data."""

    inputs: Any
    is_new: bool


class Examples:
    """The parent's memory and the new data of an update.

    Args:
        memory: Past examples, with the replay transforms.
        new: New examples, with the training transforms.
        evaluation: Test transforms of inputs and targets.
        task: Label of this update's task, >= 0.
    """

    def __init__(
        self, memory: StoredDataset, new: StoredDataset, evaluation: tuple[Any, Any], task: int
    ) -> None:
        self.num_old, self.num_new, self.task = len(memory), len(new), task
        self._parts = [
            StoredDataset(each.store, each.rows, decoding(each.transform)) for each in (memory, new)
        ]
        self._labels = [
            _labels(stored, each.target_transform)
            for stored, each in zip(self._parts, (memory, new), strict=True)
        ]
        replayed, trained = (_of_one(each.transform) for each in (memory, new))
        measured = _of_one(evaluation[0])

        def train(example: Stored) -> Any:
            return (trained if example.is_new else replayed)(example.inputs)

        def evaluate(example: Stored) -> Any:
            return measured(example.inputs)

        self._groups = {"train": (train, None), "eval": (evaluate, None)}

    def new(self) -> AvalancheDataset:
        """Return the new examples."""
        return self.of(np.arange(self.num_old, self.num_old + self.num_new))

    def of(
        self,
        rows: np.ndarray,
        tasks: np.ndarray | None = None,
        columns: Mapping[str, Tensor] | None = None,
    ) -> AvalancheDataset:
        """Return a dataset of some examples, in the given order.

        Args:
            rows: Row numbers, int64 `(n,)`.
            tasks: Task labels, int64 `(n,)`; None for this update's task.
            columns: Further values of each item, such as logits, by name, `(n, ...)`.
        """
        labels = [self._label(row) for row in rows]
        dataset = _make_taskaware_classification_dataset(
            _Rows(self, rows, labels),
            targets=labels,
            task_labels=self.task if tasks is None else tasks.tolist(),
            transform_groups=self._groups,
        )
        attributes = [DataAttribute(rows.tolist(), name=ROW, use_in_getitem=False)]
        for name, column in (columns or {}).items():
            values = FlatData([list(column)], discard_elements_not_in_indices=True)
            attributes.append(TensorDataAttribute(values, name=name, use_in_getitem=True))
        for attribute in attributes:
            dataset = dataset.update_data_attribute(attribute.name, attribute)
        return dataset

    def read(self, row: int) -> Any:
        """Return the stored inputs of a row."""
        old = row < self.num_old
        return self._parts[not old][int(row) - (0 if old else self.num_old)][0]

    def _label(self, row: int) -> int:
        old = row < self.num_old
        return int(self._labels[not old][int(row) - (0 if old else self.num_old)])


class _Rows(Dataset):
    """Rows as pairs of stored inputs and label."""

    def __init__(self, examples: Examples, rows: np.ndarray, labels: Sequence[int]) -> None:
        self.examples, self.rows, self.labels = examples, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Stored, int]:
        row = int(self.rows[index])
        stored = Stored(self.examples.read(row), row >= self.examples.num_old)
        return stored, self.labels[index]


def rows_of(dataset: AvalancheDataset) -> np.ndarray:
    """Return a dataset's row numbers, int64 `(n,)`."""
    return np.fromiter(getattr(dataset, ROW), dtype=np.int64, count=len(dataset))


def tasks_of(dataset: AvalancheDataset) -> np.ndarray:
    """Return the task labels of a dataset's rows, int64 `(n,)`."""
    labels: Any = dataset.targets_task_labels  # type: ignore[attr-defined]
    return np.fromiter(labels, dtype=np.int64, count=len(dataset))


def columns_of(dataset: AvalancheDataset) -> dict[str, Tensor]:
    """Return a dataset's further values for each row, such as logits, by name, `(n, ...)`."""
    return {
        name: torch.stack([torch.as_tensor(each) for each in attribute])
        for name, attribute in dataset._data_attributes.items()
        if name not in _STANDARD
    }


def experience(
    dataset: AvalancheDataset,
    number: int,
    old_classes: Sequence[int],
    classes_by_update: Sequence[Sequence[int]],
    task: int | None,
) -> DatasetExperience:
    """Return an update as an Avalanche experience.

    Args:
        dataset: The new examples.
        number: Number of earlier updates that this strategy has seen.
        old_classes: Labels of earlier updates.
        classes_by_update: New labels of each update that the strategy has seen, this one last.
        task: Label of the update's task if the model has several tasks, else None.
    """
    result: Any = DatasetExperience(dataset=dataset, current_experience=number)
    classes = sorted({int(each) for each in dataset.targets})  # type: ignore[attr-defined]
    result.classes_in_this_experience = classes
    result.previous_classes = set(old_classes)
    result.classes_seen_so_far = {*old_classes, *classes}
    result.benchmark = SimpleNamespace(  # the attributes that iCaRL reads
        n_classes_per_exp=[len(each) for each in classes_by_update],
        classes_order=[label for each in classes_by_update for label in each],
    )
    if task is not None:
        result.task_labels, result.task_label = [task], task
    return result


def _labels(dataset: StoredDataset, transform: Transform | None) -> np.ndarray:
    """Return the labels after the target transform, int64 `(len,)`."""
    labels = dataset.labels()
    if labels is None:
        return np.empty(0, dtype=np.int64)
    if transform is None or not len(labels):
        return labels
    if isinstance(transform, Batched):
        return np.asarray(transform(torch.from_numpy(labels)), dtype=np.int64)
    return np.array([int(transform(torch.tensor(each))) for each in labels], dtype=np.int64)


def _of_one(transform: Transform | None) -> Transform:
    """Return a transform that is applied to one example's inputs."""
    if transform is None:
        return lambda inputs: inputs
    if isinstance(transform, Batched):
        whole, each = transform, transform.each or (lambda inputs: inputs)
        return lambda inputs: whole(each(inputs).unsqueeze(0))[0]
    return transform
