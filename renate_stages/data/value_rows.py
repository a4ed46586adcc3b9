"""Collect items that consist of single values, and convert them to columns, many rows at once.

A value of Python or NumPy cannot change, unlike an array or a dict that a dataset may reuse. So it is
enough to keep references to the values of an item, and to look at them later, column by column. That
takes a quarter of the time of copying each value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np

from renate_stages.data.columns import texts_to_numbers
from renate_stages.data.items import ItemReader
from renate_stages.data.row_block import RowBlock
from renate_stages.errors import RenateStagesError
from renate_stages.memory import ExampleSpec
from renate_stages.memory.identity import given_ids
from renate_stages.memory.row_weights import PATH as WEIGHT_PATH
from renate_stages.memory.row_weights import is_weight
from renate_stages.memory.spec import METADATA

_BATCH = 512  # rows that are converted at once


class ValueRows:
    """Rows whose items have the form of a given one.

    Args:
        parts: For each part of an item its type, and its keys if it is a dict or tuple.
        kinds: Type of each value, in order.
        paths: Path of each value, in order.
        reader: Validates values.
        names: Whether the targets are names of labels.
    """

    def __init__(
        self,
        parts: list[tuple[type, tuple[Any, ...] | None]],
        kinds: list[type],
        paths: list[str],
        reader: ItemReader,
        names: bool,
    ) -> None:
        self._parts, self._kinds, self._paths = parts, kinds, paths
        self._reader, self._names = reader, names
        self._values = _values_of(parts)
        self._rows: list[tuple[Any, ...]] = []
        self._most = _BATCH

    @classmethod
    def of(cls, like: Any, reader: ItemReader, spec: ExampleSpec, named: bool) -> ValueRows | None:
        """Return a collection for items like a valid one; None if it has more than single values."""
        if type(like) is not tuple or any(field.ragged for field in spec.fields.values()):
            return None
        parts, kinds, paths = [], [], []
        for name, part in zip(("inputs", "targets", "meta"), like, strict=False):
            if type(part) is dict or type(part) is tuple:
                keys = tuple(part) if type(part) is dict else tuple(range(len(part)))
                parts.append((type(part), keys))
                kinds += [type(part[key]) for key in keys]
                paths += [f"{name}.{key}" for key in keys]
            else:
                parts.append((type(part), None))
                kinds.append(type(part))
                paths.append(name)
        for kind, path in zip(kinds, paths, strict=True):
            is_value = kind in (int, float, bool) or issubclass(kind, np.number | np.bool_)
            is_text = kind is str and (path.startswith(METADATA) or (named and path == "targets"))
            if not is_value and not is_text:
                return None
            if path == f"{METADATA}id" and kind not in (int, str):
                return None
        return cls(parts, kinds, paths, reader, named)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_full(self) -> bool:
        """Whether the rows fill the block that `reserve` was given, or are enough to be converted."""
        return len(self._rows) >= self._most

    def reserve(self, block: RowBlock) -> None:
        """Collect at most as many rows as a block has room for."""
        self._most = min(_BATCH, block.room)

    def took(self, item: Any) -> bool:
        """Take the values of an item; return whether it has the form to do so."""
        if type(item) is not tuple or len(item) != len(self._parts):
            return False
        try:
            self._rows.append(self._values(item))
        except (KeyError, _OtherFormError):
            return False
        return True

    def moved(self, block: RowBlock) -> bool:
        """Move all rows to a block that has room; return False, and move none, if one is unusual."""
        columns = list(zip(*self._rows, strict=True))
        found = {}
        try:
            for column, kind, path in zip(columns, self._kinds, self._paths, strict=True):
                if set(map(type, column)) != {kind}:
                    return False
                found[path] = self._converted(column, kind, path, block.arrays[path].dtype)
        except (ValueError, TypeError, OverflowError, RenateStagesError):
            return False  # validating the items says what is wrong
        stop = block.rows + len(self._rows)
        for path, column in found.items():
            block.arrays[path][block.rows : stop] = column
        block.rows = stop
        self._rows = []
        return True

    def items(self) -> Iterator[Any]:
        """Remove the rows, and yield them as items again."""
        rows, self._rows = self._rows, []
        for values in rows:
            rest = iter(values)
            yield tuple(
                next(rest)
                if keys is None
                else {key: next(rest) for key in keys}
                if kind is dict
                else tuple(next(rest) for _ in keys)
                for kind, keys in self._parts
            )

    def _converted(self, column: tuple[Any, ...], kind: type, path: str, dtype: np.dtype) -> Any:
        """Return values as they are stored, `(rows, ...)`."""
        if path == f"{METADATA}id":
            return given_ids(map(str, column))
        if path == WEIGHT_PATH and not is_weight(np.array(column, np.float64)).all():
            raise ValueError("validating the items says which is no weight")
        if kind is not str:
            return np.array(column, dtype)
        if path == "targets":
            assert self._reader.numbers is not None
            return texts_to_numbers(list(column), self._reader.numbers)
        name = path.removeprefix(METADATA)
        known = {text: self._reader.metadata_value(name, text, 0) for text in dict.fromkeys(column)}
        return np.array([known[text] for text in column], dtype)


class _OtherFormError(Exception):
    """An item has another form."""


def _values_of(
    parts: list[tuple[type, tuple[Any, ...] | None]],
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a function that returns the values of an item in order.

    It raises `_OtherFormError` or `KeyError` if a dict or tuple of the item has another form. The types
    of values are compared later, many at once.
    """
    (kind, keys), *others = parts
    if keys is not None and len(others) == 1 and others[0][1] is None:
        # The form of most tables, in half of the time of the general one.
        getter, count = _getter(keys), len(keys)

        def values_of_pair(item: tuple[Any, ...]) -> tuple[Any, ...]:
            inputs, target = item
            if type(inputs) is not kind or len(inputs) != count:
                raise _OtherFormError
            return (*getter(inputs), target)

        return values_of_pair

    forms = [
        (kind, 0, None) if keys is None else (kind, len(keys), _getter(keys))
        for kind, keys in parts
    ]

    def values(item: tuple[Any, ...]) -> tuple[Any, ...]:
        found: list[Any] = []
        for part, (kind, count, getter) in zip(item, forms, strict=True):
            if getter is None:
                found.append(part)
            elif type(part) is not kind or len(part) != count:
                raise _OtherFormError
            else:
                found += getter(part)
        return tuple(found)

    return values


def _getter(keys: tuple[Any, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values at some keys as a tuple."""
    if len(keys) == 1:
        (key,) = keys
        return lambda part: (part[key],)
    return itemgetter(*keys)
