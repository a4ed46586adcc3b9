"""Read one part of all items of a dataset: its labels, inputs or a metadata field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data.columns import chosen, columns_of
from renate_stages.data.items import ItemReader
from renate_stages.errors import InvalidScenarioError, NotAPairError, user_code


def length_of(dataset: Any, split: str, scenario: str) -> int:
    """Return the number of rows of a dataset.

    Raises:
        InvalidScenarioError: If it has no length, such as an `IterableDataset`.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        problem = f"{split}_data() is a {type(dataset).__name__}, whose rows cannot be chosen"
        raise InvalidScenarioError(scenario, problem, "return a dataset with a length and items")
    return len(dataset)


def items_of(dataset: Any, split: str) -> Iterator[Any]:
    """Yield every item of a dataset, each checked to be a pair, or a pair with metadata."""
    for row in range(len(dataset)):
        with user_code.running(f"data_module_fn, {split} data, item {row}"):
            item = dataset[row]
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise NotAPairError(split, row, user_code.outline(item))
        yield item


def labels_of(dataset: Dataset, split: str, scenario: str) -> np.ndarray:
    """Return the label of each row, `(rows,)`: int64, or objects if labels are texts.

    Raises:
        InvalidScenarioError: If a target is neither a whole number nor a text.
    """
    source, rows = columns_of(dataset)
    columns = source.targets if source is not None else None
    if isinstance(columns, Tensor) or (isinstance(columns, np.ndarray) and columns.dtype != object):
        targets = chosen(columns, rows)
        if len(targets):
            _label(targets[0], 0, split, scenario)  # all have its shape and dtype
        return np.asarray(targets).astype(np.int64)
    labels = [
        _label(item[1], row, split, scenario) for row, item in enumerate(items_of(dataset, split))
    ]
    if len({type(label) for label in labels}) > 1:
        problem = f"some labels of {split}_data() are texts and others numbers"
        raise InvalidScenarioError(scenario, problem, "return labels of one type")
    return np.array(labels, dtype=object if labels and isinstance(labels[0], str) else np.int64)


def metadata_of(dataset: Any, field: str, split: str, scenario: str) -> np.ndarray:
    """Return a metadata field of each row, `(rows,)`: numbers, or texts as objects.

    Raises:
        InvalidScenarioError: If an item does not have the field, its value is NaN, or some values are
            texts and others numbers.
    """
    reader, values = ItemReader(split), []
    for row, item in enumerate(items_of(dataset, split)):
        metadata = reader.metadata(item, row)
        if field not in metadata:
            known = ", ".join(sorted(metadata)) or "none"
            problem = f"item {row} of {split}_data() has no metadata '{field}' (it has: {known})"
            raise InvalidScenarioError(scenario, problem, "return it, or name another field")
        value = metadata[field].item()
        if isinstance(value, float) and math.isnan(value):
            problem = f"metadata '{field}' of item {row} of {split}_data() is NaN"
            raise InvalidScenarioError(scenario, problem, "give it a value, or leave the item out")
        values.append(value.decode() if isinstance(value, bytes) else value)
    if len({isinstance(value, str) for value in values}) > 1:
        problem = (
            f"metadata '{field}' is text in some items of {split}_data() and a number in others"
        )
        raise InvalidScenarioError(scenario, problem, "return one type")
    return np.array(values, dtype=object if values and isinstance(values[0], str) else None)


def array_of(inputs: Any, row: int, split: str, scenario: str) -> np.ndarray:
    """Return the inputs of an item as an array.

    Raises:
        InvalidScenarioError: If they are not one tensor or numeric array.
    """
    if isinstance(inputs, Tensor):
        return inputs.detach().cpu().numpy()
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "biuf":
        return inputs
    problem = f"the inputs of item {row} of {split}_data() are {user_code.outline(inputs)}"
    raise InvalidScenarioError(scenario, problem, "return one tensor, or use another scenario")


def _label(target: Any, row: int, split: str, scenario: str) -> int | str:
    if isinstance(target, str):
        return target
    array = target.numpy() if isinstance(target, Tensor) else np.asarray(target)
    if array.ndim == 0 and array.dtype.kind in "iub":
        return int(array)
    problem = f"the target of item {row} of {split}_data() is {user_code.outline(target)}"
    cure = "return a whole number or a text as the label, or use a scenario without classes"
    raise InvalidScenarioError(scenario, problem, cure)
