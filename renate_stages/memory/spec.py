"""What one example looks like: its structure, and the dtype and shape of each of its arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from renate_stages.errors import ExampleMismatchError, ExampleStructureError

Tree: TypeAlias = Any
"""An array, or a dict or tuple of trees. An example is the tuple `(inputs, targets)`."""

Structure: TypeAlias = Any
"""A tree with its arrays taken out, as JSON: `"array"`, `{"dict": {…}}` or `{"tuple": […]}`."""

FIELD_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NUMERIC = "biufc"  # numpy's kinds: bool, signed, unsigned, float, complex


@dataclass(frozen=True)
class Field:
    """One array of an example: its dtype (little-endian) and the shape for one example."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name} {self.shape}"

    @property
    def nbytes(self) -> int:
        """Bytes of one example's array."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class ExampleSpec:
    """Structure of an example and its fields by path, such as `inputs` or `inputs.image`.

    Args:
        structure: `{"inputs": Structure, "targets": Structure}`.
        fields: Path of each leaf (keys and positions joined by `.`) to its dtype and shape.
    """

    structure: dict[str, Structure]
    fields: dict[str, Field]

    @classmethod
    def of(cls, block: Tree) -> ExampleSpec:
        """Return the spec of the examples in a batched block.

        Args:
            block: `(inputs, targets)`, each an array `(rows, ...)` or a dict or tuple of them.

        Raises:
            ExampleStructureError: A part is empty, not numeric, or has an unusable key.
        """
        fields = {path: _field_of(path, leaf) for path, leaf in flatten_example(block).items()}
        return cls(structure_of_example(block), fields)

    @property
    def row_bytes(self) -> int:
        """Bytes of one example."""
        return sum(field.nbytes for field in self.fields.values())

    def flatten(self, block: Tree) -> dict[str, np.ndarray]:
        """Return the block's arrays `(rows, ...)` by path.

        Raises:
            ExampleMismatchError: The block differs from this spec, or its arrays in their rows.
        """
        columns = flatten_example(block)
        self.require(ExampleSpec.of(block), "block of examples")
        rows = {path: len(column) for path, column in columns.items()}
        first, expected = next(iter(rows.items()))
        for path, found in rows.items():
            if found != expected:
                raise ExampleMismatchError(path, f"{found} rows", f"{expected} rows ('{first}')")
        return {path: np.asarray(column) for path, column in columns.items()}

    def unflatten(self, columns: Mapping[str, Any]) -> Tree:
        """Return `(inputs, targets)` built from what each path holds; dict keys are sorted."""
        return tuple(_build(node, part, columns) for part, node in self.structure.items())

    def require(self, other: ExampleSpec, where: str) -> None:
        """Raise `ExampleMismatchError`, naming the first difference, if `other` is not equal."""
        if other.structure != self.structure:
            raise ExampleMismatchError(where, outline(other.structure), outline(self.structure))
        for path, field in self.fields.items():
            if other.fields[path] != field:
                raise ExampleMismatchError(f"{where}, {path}", str(other.fields[path]), str(field))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values, to be read by `from_json`."""
        return {
            "fields": {
                path: {"dtype": field.dtype.name, "shape": list(field.shape)}
                for path, field in self.fields.items()
            },
            "structure": self.structure,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ExampleSpec:
        """Return the spec that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: The record is not one.
        """
        structure = {part: record["structure"][part] for part in ("inputs", "targets")}
        fields = {}
        for path in (path for part, node in structure.items() for path in _paths(node, part)):
            dtype = np.dtype(record["fields"][path]["dtype"]).newbyteorder("<")
            shape = tuple(record["fields"][path]["shape"])
            if dtype.kind not in _NUMERIC:
                raise ValueError(f"field '{path}' has dtype {dtype}")
            if not all(isinstance(side, int) and side >= 0 for side in shape):
                raise ValueError(f"field '{path}' has shape {shape}")
            if not FIELD_NAME.fullmatch(path):
                raise ValueError(f"field {path!r} is not a plain file name")
            fields[path] = Field(dtype, shape)
        if fields.keys() != record["fields"].keys():
            raise ValueError("structure and fields name different arrays")
        return cls(structure, fields)


def structure_of_example(example: Tree) -> dict[str, Structure]:
    """Return the structure of `(inputs, targets)`; lists count as tuples."""
    inputs, targets = example
    return {"inputs": _structure_of(inputs), "targets": _structure_of(targets)}


def flatten_example(example: Tree) -> dict[str, Any]:
    """Return the leaves of `(inputs, targets)` by path, dict keys in sorted order.

    Raises:
        ExampleStructureError: A dict or tuple is empty, or a key is not a plain name.
    """
    inputs, targets = example
    return dict(_leaves(inputs, "inputs")) | dict(_leaves(targets, "targets"))


def outline(structure: dict[str, Structure]) -> str:
    """Return the structure of an example as a reader writes it: `((array, array), array)`."""
    return f"({', '.join(map(_outline, structure.values()))})"


def _outline(node: Structure) -> str:
    if node == "array":
        return "array"
    if "dict" in node:
        return (
            "{"
            + ", ".join(f"{key}: {_outline(child)}" for key, child in node["dict"].items())
            + "}"
        )
    return f"({', '.join(map(_outline, node['tuple']))},)"


def _structure_of(tree: Tree) -> Structure:
    if isinstance(tree, Mapping):
        return {"dict": {key: _structure_of(tree[key]) for key in sorted(tree)}}
    if isinstance(tree, tuple | list):
        return {"tuple": [_structure_of(child) for child in tree]}
    return "array"


def _leaves(tree: Tree, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping | tuple | list):
        if not tree:
            raise ExampleStructureError(path, f"an empty {type(tree).__name__}", "an array in it")
        if isinstance(tree, Mapping):
            for key in tree:
                if not (isinstance(key, str) and _KEY.fullmatch(key)):
                    expected = "keys of letters, digits, '_' and '-': they name files"
                    raise ExampleStructureError(path, f"a dict with the key {key!r}", expected)
            children = [(key, tree[key]) for key in sorted(tree)]
        else:
            children = list(enumerate(tree))
        for key, child in children:
            yield from _leaves(child, f"{path}.{key}")
    else:
        yield path, tree


def _paths(node: Structure, path: str) -> Iterator[str]:
    if node == "array":
        yield path
        return
    ((kind, children),) = node.items()
    if kind not in ("dict", "tuple") or not children:
        raise ValueError(f"structure of '{path}' is {node!r}")
    for key, child in children.items() if kind == "dict" else enumerate(children):
        yield from _paths(child, f"{path}.{key}")


def _build(node: Structure, path: str, columns: Mapping[str, Any]) -> Tree:
    if node == "array":
        return columns[path]
    if "dict" in node:
        return {key: _build(child, f"{path}.{key}", columns) for key, child in node["dict"].items()}
    return tuple(_build(child, f"{path}.{key}", columns) for key, child in enumerate(node["tuple"]))


def _field_of(path: str, leaf: Any) -> Field:
    array = np.asarray(leaf)
    if array.dtype.kind not in _NUMERIC or array.ndim == 0:
        found = f"{type(leaf).__name__} ({array.dtype}, shape {array.shape})"
        raise ExampleStructureError(path, found, "a batch of numbers, shape (rows, ...)")
    return Field(array.dtype.newbyteorder("<"), array.shape[1:])
