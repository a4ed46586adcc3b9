"""Split test and validation data off the training data: at random, by label, by time or by group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from renate_stages.data.columns import chosen, columns_of
from renate_stages.data.items import ItemReader
from renate_stages.data.metadata_columns import distinct_values, metadata_column
from renate_stages.data.module import split, subset
from renate_stages.errors import DataModuleError, user_code
from renate_stages.errors.wording import counted
from renate_stages.randomness import Generators


def split_off(
    dataset: Any,
    shares: Mapping[str, float],
    generators: Generators,
    rule: str = "random",
    field: str | None = None,
) -> tuple[Any, dict[str, Subset]]:
    """Split shares off a dataset's rows, in turn; return the rest, and the shares above 0.

    Args:
        dataset: The training data.
        shares: Share of the rows that are left, by the name of the split.
        generators: The update's generators, which draw random rows.
        rule: `random`; `stratified`: random rows, with the same share of each label; `newest`: the
            rows with the largest `field`; `grouped`: all rows with the same `field` are in one split,
            which depends only on its value and the seed, so that it is the same in each update.
        field: A metadata field, for `newest` and `grouped`.

    Raises:
        DataModuleError: If the dataset has no length or too few rows, rows lack the field, or a row
            has no single label.
    """
    shares = {name: fraction for name, fraction in shares.items() if fraction}
    parts: dict[str, Subset] = {}
    if not shares:
        return dataset, parts
    if not hasattr(dataset, "__len__"):
        raise DataModuleError(
            f"train_data() is a {type(dataset).__name__} without a length, which cannot be split",
            "return test_data() and val_data() as well, or a dataset with a length",
        )
    if field == "id":
        problem = "data.split_by: id differs in every row"
        raise DataModuleError(problem, "name another metadata field, such as a customer or a time")
    keys = np.empty(0)
    if rule == "stratified":
        keys = labels_of(dataset)
    elif field is not None:
        keys = sort_keys(dataset, field)
    for name, fraction in shares.items():
        with user_code.running("train_data() of the data module"):
            rows = len(dataset)
            if rule == "newest":
                second = newest(keys, fraction)
            elif rule == "grouped":
                second = in_group(keys, fraction, f"{name} {generators.seed}")
            else:
                seed = generators.integer(f"{name} split")
                second = stratified(keys, fraction, seed) if rule == "stratified" else None
            if second is None:
                dataset, parts[name] = split(dataset, fraction, seed)
            else:
                first = np.setdiff1d(np.arange(rows), second)
                whole, keys = dataset, keys[first]
                dataset, parts[name] = subset(whole, first), subset(whole, second)
        if not len(dataset) or not len(parts[name]):
            what = counted(rows, "row")
            if rule == "grouped":
                what += f" with too few different values of metadata {field!r}"
            raise DataModuleError(
                f"its training data has {what}, too few to split off {fraction:.0%} for {name}",
                f"add rows, let it return {name} data of its own, or change the shares in params.yaml, "
                "data.test_fraction and data.validation_fraction",
            )
    return dataset, parts


def newest(keys: np.ndarray, share: float) -> np.ndarray:
    """Return a share of the rows, those with the largest keys, ascending int64; not all of them.

    Args:
        keys: Key of each row, `(rows,)`. Of rows with equal keys, later ones count as newer.
        share: Share in [0, 1), rounded to whole rows.
    """
    count = min(round(share * len(keys)), max(0, len(keys) - 1))
    return np.sort(np.argsort(keys, kind="stable")[len(keys) - count :])


def stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return a random share of the rows with, for each label, its share of the rows within one row.

    Rows are sorted by label, and within a label at random; then rows at equal distances are taken.

    Args:
        labels: Label of each row, `(rows,)`.
        share: Share in [0, 1), rounded to whole rows; one row at least stays.
        seed: Seed of the random order.
    """
    count = min(round(share * len(labels)), max(0, len(labels) - 1))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).numpy()
    order = order[np.argsort(labels[order], kind="stable")]
    places = ((np.arange(count) + 0.5) * len(labels) / max(1, count)).astype(np.int64)
    return np.sort(order[places])


def in_group(groups: np.ndarray, share: float, salt: str) -> np.ndarray:
    """Return the rows of about a share of the groups, ascending int64.

    Args:
        groups: The group of each row, `(rows,)`: numbers or bytes.
        share: Probability in [0, 1) that a group is taken.
        salt: A text, on which with its value depends whether a group is taken.
    """
    values, group_of = np.unique(groups, return_inverse=True)
    taken = [_fraction(value, salt) < share for value in values.tolist()]
    return np.flatnonzero(np.array(taken, dtype=bool)[group_of])


def _fraction(value: Any, salt: str) -> float:
    """Return a number in [0, 1) that depends on a value as a hash does."""
    text = value if isinstance(value, bytes) else repr(value).encode()
    digest = blake2b(text, digest_size=8, salt=blake2b(salt.encode(), digest_size=16).digest())
    return int.from_bytes(digest.digest()[:6]) / 2**48


def labels_of(dataset: Any) -> np.ndarray:
    """Return the label of each row, `(rows,)`: integers, or texts as objects; reads every item once.

    Names in an array of the dtype `numpy.dtypes.StringDType` become their places in alphabetical order.

    Raises:
        DataModuleError: If a row has no single label.
    """
    source, rows = columns_of(dataset)
    if source is not None and not isinstance(source.targets, dict | tuple):
        targets = np.asarray(chosen(source.targets, rows))
        if targets.dtype.kind == "T":
            distinct, places = distinct_values(targets)
            names = [text for text, _ in distinct]
            return np.argsort(np.argsort(np.array(names, dtype=object)))[places]
        found = list(targets) if targets.dtype == object or targets.ndim != 1 else targets
    else:
        found = []
        for row in range(len(dataset)):
            with user_code.running(f"data_module_fn, train data, item {row}"):
                item = dataset[row]
            ItemReader("train").metadata(item, row)  # refuses what is no pair
            found.append(item[1])
    if isinstance(found, np.ndarray) and found.dtype.kind in "iub":
        return found
    values = [_label(value, row) for row, value in enumerate(found)]
    return np.array([str(value) for value in values], dtype=object)


def _label(value: Any, row: int) -> int | str:
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    if isinstance(value, str) or (array.ndim == 0 and array.dtype.kind in "iub"):
        return value if isinstance(value, str) else int(array)
    raise DataModuleError(
        f"the target of item {row} of train_data() is {user_code.outline(value)}, but "
        "data.split: stratified needs one label for each row, a whole number or a text",
        "set data.split in params.yaml to random, newest or grouped",
    )


def sort_keys(dataset: Any, field: str) -> np.ndarray:
    """Return a metadata field of all items of the training data, `(rows,)`.

    It reads every item once, unless the dataset has columns.

    Args:
        dataset: A dataset with a length, whose items end with a dict of metadata.
        field: Name of the field. Its values are numbers, or texts such as `2026-11-30`, which are
            compared letter by letter.

    Raises:
        DataModuleError: If an item does not have the field, its value is NaN, or some values are
            numbers and others texts.
        UnstorableValueError, InvalidMetadataError: As `ingest`.
    """
    reader, keys = ItemReader("train"), []
    source, rows = columns_of(dataset)
    if source is not None and field in source.metadata:
        column = metadata_column(field, chosen(source.metadata[field], rows), 0, reader)
        if column.dtype.kind == "f" and np.isnan(column).any():
            raise _not_a_number(field, int(np.flatnonzero(np.isnan(column))[0]))
        return column
    for row in range(len(dataset)):
        with user_code.running(f"data_module_fn, train data, item {row}"):
            item = dataset[row]
        metadata = reader.metadata(item, row)
        if field not in metadata:
            known = ", ".join(sorted(metadata)) or "none"
            problem = f"item {row} of its training data has no metadata {field!r} (it has: {known})"
            cure = "set data.split_by in params.yaml to a name of metadata, or return such metadata"
            raise DataModuleError(problem, cure)
        key = metadata[field].item()
        if isinstance(key, float) and math.isnan(key):
            raise _not_a_number(field, row)
        if keys and isinstance(key, bytes) != isinstance(keys[0], bytes):
            problem = (
                f"metadata {field!r} is text in some items and a number in others (item {row})"
            )
            raise DataModuleError(problem, "return one type, or change data.split_by")
        keys.append(key)
    return np.array(keys)


def _not_a_number(field: str, row: int) -> DataModuleError:
    problem = f"metadata {field!r} of item {row} of train_data() is NaN"
    return DataModuleError(problem, "give it a value, or change data.split_by")
