"""Fill the rows of a block: item by item, or by copying items that have a known form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from renate_stages.data.columns import BLOCK_BYTES, BLOCK_ROWS
from renate_stages.data.items import Item, ItemReader
from renate_stages.errors import RenateStagesError
from renate_stages.memory import Column, ExampleSpec, Ragged
from renate_stages.memory.identity import given_id
from renate_stages.memory.row_weights import WEIGHT
from renate_stages.memory.spec import METADATA, Field


class RowBlock:
    """Rows of one block, which are filled one after the other.

    Args:
        spec: The spec of the rows; fields of varying length may get another dtype later.
    """

    def __init__(self, spec: ExampleSpec) -> None:
        self.spec = spec
        self.rows = 0
        self.nbytes = 0  # of fields that vary in length
        fixed = {path: each for path, each in spec.all_fields.items() if not each.ragged}
        self._row_bytes = sum(each.nbytes for each in fixed.values())
        self._most = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, self._row_bytes)))
        self.arrays = {
            path: np.empty((self._most, *each.shape), each.dtype) for path, each in fixed.items()
        }
        self.lists: dict[str, list[np.ndarray]] = {
            path: [] for path, each in spec.fields.items() if each.ragged
        }

    @property
    def room(self) -> int:
        """Rows that fit until the block is full, if no field varies in length; at least 1."""
        return max(1, self._most - self.rows)

    @property
    def filled(self) -> int:
        """Bytes of the rows so far."""
        return self.rows * self._row_bytes + self.nbytes

    @property
    def is_full(self) -> bool:
        return self.rows >= self._most or self.filled >= BLOCK_BYTES

    def add(self, item: Item) -> None:
        """Copy an item that fits the spec; a full block becomes larger."""
        if self.arrays and self.rows == len(next(iter(self.arrays.values()))):
            self.arrays = {path: np.concatenate([each, each]) for path, each in self.arrays.items()}
        metadata = {METADATA + name: value for name, value in item.metadata.items()}
        for path, value in {**item.values, **metadata}.items():
            if path in self.lists:
                self.lists[path].append(value.copy())
                self.nbytes += value.nbytes
            else:
                self.arrays[path][self.rows] = value
        self.rows += 1

    def columns(self) -> dict[str, Column]:
        """Return the rows as columns by path."""
        found: dict[str, Column] = {}
        for path, field in self.spec.all_fields.items():
            if path in self.arrays:
                found[path] = self.arrays[path][: self.rows]
                continue
            values = [
                value.astype(field.dtype, copy=False) if value.size else _nothing(field)
                for value in self.lists[path]
            ]
            found[path] = Ragged.of(values, field.decoder)
        return found


class Copier:
    """Copies items that have the form of a given one to a block.

    Args:
        like: The item.
        names: Returns the number of a label's name, if targets are names.
        metadata: Converts a value of the metadata; its arguments are a name and the value.
        spec: The spec of the item.
    """

    def __init__(
        self,
        like: Any,
        names: Callable[[str], Any] | None,
        metadata: Callable[[str, Any], np.ndarray],
        spec: ExampleSpec,
    ) -> None:
        self._form = type(like), len(like)
        self._containers: list[tuple[int, Any, type, int]] = []  # parent, key, type, length
        self._leaves: list[tuple[int, Any, str, type, Any, Any]] = []  # parent, key, path, type, …
        self._names, self._metadata = names, metadata
        for key, part in enumerate(("inputs", "targets")):
            self._look(like[key], 0, key, part, spec)
        self._known: list[tuple[str, type]] = []
        for name, value in like[2].items() if len(like) == 3 else ():
            self._known.append((name, type(value)))

    @classmethod
    def of(cls, like: Any, item: Item, reader: ItemReader, spec: ExampleSpec) -> Copier | None:
        """Return a copier for items like a valid one, or None if such items are always validated."""
        given_kind = type(like[2].get("id", "")) if len(like) == 3 else str
        if any(each.ragged for each in spec.fields.values()) or given_kind not in (str, int):
            return None
        cache: dict[tuple[str, Any], np.ndarray] = {}

        def metadata(name: str, value: Any) -> np.ndarray:
            if (name, value) not in cache:
                if len(cache) >= BLOCK_ROWS:
                    cache.clear()
                cache[name, value] = reader.metadata_value(name, value, 0)
            return cache[name, value]

        return cls(like, reader.numbers if item.named else None, metadata, spec)

    @property
    def names(self) -> bool:
        """Whether the targets are names of labels."""
        return self._names is not None

    def copied(self, item: Any, block: RowBlock) -> bool:
        """Copy an item to the next row of a block; return whether it has the form to do so."""
        if (type(item), len(item) if isinstance(item, tuple | list) else 0) != self._form:
            return False
        row, arrays, nodes = block.rows, block.arrays, [item]
        try:
            for parent, key, kind, length in self._containers:
                node = nodes[parent][key]
                if type(node) is not kind or len(node) != length:
                    return False
                nodes.append(node)
            for parent, key, path, kind, dtype, shape in self._leaves:
                leaf = nodes[parent][key]
                if type(leaf) is not kind:
                    return False
                if dtype is not None and (leaf.dtype != dtype or leaf.shape != shape):
                    return False
                if kind is Tensor:
                    leaf = leaf.numpy()
                elif kind is str and self._names is not None:
                    leaf = self._names(leaf)
                arrays[path][row] = leaf
            given = item[2] if len(item) == 3 else {}
            if len(given) != len(self._known):
                return False
            for name, kind in self._known:
                value = given[name]
                if type(value) is not kind:
                    return False
                if name == "id":
                    value = np.frombuffer(given_id(str(value)), ">u8")
                elif kind is str or name == WEIGHT:
                    value = self._metadata(name, value)
                arrays[METADATA + name][row] = value
        except (KeyError, RuntimeError, TypeError, ValueError, OverflowError, RenateStagesError):
            return False  # validating the item says what is wrong
        block.rows += 1
        return True

    def _look(self, node: Any, parent: int, key: Any, path: str, spec: ExampleSpec) -> None:
        """Record where a container, and what is in it, or a leaf is in the item."""
        if isinstance(node, Mapping | tuple | list):
            self._containers.append((parent, key, type(node), len(node)))
            own = len(self._containers)  # the item itself is number 0
            children = node.items() if isinstance(node, Mapping) else enumerate(node)
            for inner, child in children:
                self._look(child, own, inner, f"{path}.{inner}", spec)
            return
        has_shape = isinstance(node, Tensor | np.ndarray)
        dtype, shape = (node.dtype, node.shape) if has_shape else (None, None)
        self._leaves.append((parent, key, path, type(node), dtype, shape))


def _nothing(field: Field) -> np.ndarray:
    """Return an empty row of a ragged field; an empty list has no shape or dtype of its own."""
    return np.empty((0, *field.shape), field.dtype)
