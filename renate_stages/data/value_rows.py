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
from renate_stages.memory.identity import given_id, to_array
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
        self._getters = [None if keys is None else _getter(keys) for _, keys in parts]
        self._rows: list[tuple[Any, ...]] = []
        self._most = _BATCH
        self._form: tuple[type, int] = (tuple, len(parts))

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

    def is_full(self, block: RowBlock) -> bool:
        """Return whether the rows fill a block, or are enough to be converted at once."""
        if len(self._rows) == 1:
            self._most = min(_BATCH, block.room)
        return len(self._rows) >= self._most

    def took(self, item: Any) -> bool:
        """Take the values of an item; return whether it has the form to do so."""
        if (type(item), len(item) if type(item) is tuple else 0) != self._form:
            return False
        values: tuple[Any, ...] = ()
        try:
            for part, (kind, keys), getter in zip(item, self._parts, self._getters, strict=True):
                if type(part) is not kind:
                    return False
                if getter is None or keys is None:
                    values += (part,)
                elif len(part) != len(keys):
                    return False
                else:
                    values += getter(part)
        except KeyError:
            return False
        self._rows.append(values)
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
            return to_array(given_id(str(value)) for value in column)
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


def _getter(keys: tuple[Any, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values at some keys as a tuple."""
    if len(keys) == 1:
        (key,) = keys
        return lambda part: (part[key],)
    return itemgetter(*keys)
