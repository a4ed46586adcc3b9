"""Apply a data module's collate functions to single items, if all that they do is to pad batches.

Examples are stored one by one and padded when a batch is read. So a collate function that converts
items to tensors and pads them at the end can be applied to each item before it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data.trees import padded
from renate_stages.errors import DataModuleError, user_code
from renate_stages.memory.spec import IGNORED

Collate = Callable[[list[Any]], Any]
PROBED = 32  # items to look at
PADDING = {"inputs": 0, "targets": IGNORED}


def collated(
    module: Any, datasets: tuple[Any, Any, Any], functions: Iterable[str]
) -> tuple[tuple[Any, Any, Any], tuple[str, ...]]:
    """Apply the collate functions of a data module to the items of its datasets.

    Args:
        module: The data module; its methods such as `train_collate_fn` return a function or None.
        datasets: The training, validation and test data; None if a split is missing.
        functions: Names of the user's functions.

    Returns:
        The datasets, and the paths of the fields that the collate functions pad.

    Raises:
        DataModuleError: If a function does anything else than to pad, or if there are transforms,
            which would see collated items.
    """
    made, padded = [], set()
    transforms = sorted(each for each in functions if each.endswith("_transform"))
    for split, dataset in zip(("train", "val", "test"), datasets, strict=True):
        name = f"{split}_collate_fn"
        collate = getattr(module, name)() if hasattr(module, name) else None
        if collate is None or dataset is None:
            made.append(dataset)
            continue
        if transforms:
            raise DataModuleError(
                f"{name} of the data module returns a function, which would be applied before "
                f"{', '.join(transforms)}",
                "do what it does in the dataset or in these transforms, and let it return None",
            )
        padded |= {*padded_fields(dataset, collate, name)}
        made.append(Collated(dataset, collate, name))
    train, val, test = made
    return (train, val, test), tuple(padded)


class Collated(Dataset):
    """The items of a dataset, each as its collate function makes it in a batch of one.

    Args:
        dataset: A dataset with a length.
        collate: A collate function that `padded_fields` accepts.
        name: The function's name, for messages.
    """

    def __init__(self, dataset: Any, collate: Collate, name: str) -> None:
        self.dataset = dataset
        self.collate = collate
        self.name = name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        batch = _collated(self.collate, [self.dataset[index]], self.name)
        return tuple(_first(part) for part in batch)


def padded_fields(dataset: Any, collate: Collate, name: str) -> tuple[str, ...]:
    """Return the paths of the fields that a collate function pads, such as `inputs.input_ids`.

    Args:
        dataset: The items that it collates.
        collate: The function.
        name: Its name, for messages.

    Raises:
        DataModuleError: If it does anything else than to convert items and to pad them at the end,
            inputs with 0 and integer targets with -100.
    """
    if not hasattr(dataset, "__len__") or not len(dataset):
        raise DataModuleError(f"{name} needs a dataset with a length", "return such a dataset")
    rows = sorted({int(row) for row in torch.linspace(0, len(dataset) - 1, PROBED).tolist()})
    items = [dataset[row] for row in rows]
    single = [dict(_leaves(_collated(collate, [item], name))) for item in items]
    if any(each.keys() != single[0].keys() for each in single):
        raise _refused(name, "it returns batches of different structures")
    whole = dict(_leaves(_collated(collate, items, name)))
    for path, found in whole.items():
        ones = [each[path] for each in single if path in each]
        counts = [len(part) if part.ndim else 0 for part in (found, *ones)]
        if counts != [len(items), *[1] * len(items)]:
            raise _refused(name, f"{path} of a batch does not have one row for each item")
        if not torch.equal(
            found, _stacked([part[0] for part in ones], PADDING[path.split(".")[0]], name)
        ):
            how = "pads with another value, or not at the end, or changes items in another way"
            raise _refused(name, f"it {how} (looking at {path})")
    return tuple(p for p in whole if len({each[p].shape for each in single}) > 1)


def _stacked(rows: list[Tensor], padding: int, name: str) -> Tensor:
    if len({row.shape for row in rows}) == 1:
        return torch.stack(rows)
    if len({row.shape[1:] for row in rows}) > 1 or not rows[0].ndim:
        raise _refused(name, "items differ in more than their length")
    return padded(rows, padding)


def _refused(name: str, problem: str) -> DataModuleError:
    return DataModuleError(
        f"{name} cannot be applied to single examples before they are stored: {problem}",
        "do in the dataset or in a transform what it does, and list fields of varying length in "
        "ragged_fields: batches are padded with zeros",
    )


def _collated(collate: Collate, items: list[Any], name: str) -> tuple[Any, ...]:
    with user_code.running(f"{name} of the data module"):
        batch = collate(items)
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise _refused(name, f"it returns {user_code.outline(batch)}, expected (inputs, targets)")
    return tuple(batch)


def _leaves(batch: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a batch with their paths; what is no tensor is left to `ingest`."""
    waiting = [("targets", batch[1]), ("inputs", batch[0])]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, Tensor):
            yield path, part
        elif isinstance(part, Mapping):
            waiting += [(f"{path}.{key}", child) for key, child in part.items()]
        elif isinstance(part, tuple | list):
            waiting += [(f"{path}.{number}", child) for number, child in enumerate(part)]


def _first(part: Any) -> Any:
    """Return the first row of a batch."""
    if isinstance(part, Mapping):
        return {key: _first(child) for key, child in part.items()}
    if isinstance(part, tuple | list) and part and isinstance(part[0], Tensor | Mapping | tuple):
        return tuple(_first(child) for child in part)
    return part[0]
