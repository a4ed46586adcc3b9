"""`ExampleSpec`: the structure, dtypes and shapes of an example."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from renate_stages.errors import ExampleMismatchError, ExampleStructureError
from renate_stages.memory.ragged import Column, Ragged

Tree: TypeAlias = Any
"""An array, a `Ragged`, or a dict or tuple of trees. An example is the tuple `(inputs, targets)`."""

Structure: TypeAlias = Any
"""The nesting of a tree as JSON: `"array"`, `{"dict": {…}}` or `{"tuple": […]}`."""

FIELD_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NUMERIC = "biufc"  # numpy's kinds: bool, signed, unsigned, float, complex
METADATA = "meta."  # prefix of the path of a metadata field
IGNORED = -100  # a label that counts in no loss and no metric, as in PyTorch's cross-entropy
TEXT_BYTES = 32  # maximum number of UTF-8 bytes of a text in metadata


@dataclass(frozen=True)
class Field:
    """One array of an example: its dtype (little-endian) and the shape for one example.

    Args:
        dtype: Numeric or bool; in metadata also bytes of fixed length.
        shape: Shape of one example or, if `ragged`, of one of its values.
        ragged: Whether examples have different numbers of values.
        decoder: Name of the decoder of a ragged field of bytes.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    ragged: bool = False
    decoder: str | None = None

    @classmethod
    def of(cls, path: str, column: Any, kinds: str = _NUMERIC) -> Field:
        """Return the field of a column of rows.

        Raises:
            ExampleStructureError: If it is not numeric or has no batch dimension.
        """
        if isinstance(column, Ragged):
            return cls(_little(column.values), column.values.shape[1:], True, column.decoder)
        array = np.asarray(column)
        if array.dtype.kind not in kinds or array.ndim == 0:
            found = f"{type(column).__name__} ({array.dtype}, shape {array.shape})"
            raise ExampleStructureError(path, found, "a batch of numbers, shape (rows, ...)")
        return cls(_little(array), array.shape[1:])

    @classmethod
    def from_json(cls, path: str, record: Mapping[str, Any], kinds: str = _NUMERIC) -> Field:
        """Return the field from a record that `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: If the record is not valid.
        """
        dtype = np.dtype(record["dtype"]).newbyteorder("<")
        shape = tuple(record["shape"])
        ragged, decoder = record.get("ragged", False), record.get("decoder")
        if dtype.kind not in kinds:
            raise ValueError(f"field '{path}' has dtype {dtype}")
        if not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError(f"field '{path}' has shape {shape}")
        if not FIELD_NAME.fullmatch(path):
            raise ValueError(f"field {path!r} is not a plain file name")
        if not isinstance(ragged, bool) or not isinstance(decoder, str | None):
            raise TypeError(f"field '{path}' is ragged {ragged!r}, decoded {decoder!r}")
        return cls(dtype, shape, ragged, decoder)

    def to_json(self) -> dict[str, Any]:
        """Return the field as JSON values for `from_json`."""
        name = self.dtype.str if self.dtype.kind == "S" else self.dtype.name
        record: dict[str, Any] = {"dtype": name, "shape": list(self.shape)}
        if self.ragged:
            record["ragged"] = True
        if self.decoder:
            record["decoder"] = self.decoder
        return record

    def __str__(self) -> str:
        shape = f"(*, {', '.join(map(str, self.shape))})" if self.ragged else self.shape
        decoded = f", decoded as {self.decoder}" if self.decoder else ""
        return f"{self.dtype.name} {shape}{decoded}"

    @property
    def nbytes(self) -> int:
        """Bytes of one example's array or, if ragged, of one of its values."""
        return self.dtype.itemsize * math.prod(self.shape)

    def missing(self, rows: int) -> np.ndarray:
        """Return the fill values for unknown metadata: NaN, -1, 0, False or b"".

        These can also be real values; `ExampleStore.known` returns which rows have one.
        """
        value = {"f": np.nan, "c": np.nan, "i": -1}.get(self.dtype.kind, 0)
        return np.full((rows, *self.shape), b"" if self.dtype.kind == "S" else value, self.dtype)


def known_values(column: np.ndarray) -> np.ndarray:
    """Return which values of a metadata column `(rows, ...)` are not NaN, bool `(rows,)`."""
    if column.dtype.kind not in "fc":
        return np.ones(len(column), dtype=bool)
    return np.logical_not(np.isnan(column.reshape(len(column), -1)).any(axis=1))


def _little(array: np.ndarray) -> np.dtype:
    return array.dtype.newbyteorder("<")


@dataclass(frozen=True)
class ExampleSpec:
    """Structure of an example and its fields by path, such as `inputs` or `inputs.image`.

    Args:
        structure: `{"inputs": Structure, "targets": Structure}`.
        fields: Field of each array by its path (keys and positions joined by `.`).
        metadata: Field of each kind of metadata by its path (`meta.id`, `meta.source`). Rows of a
            store may lack some metadata, which is then unknown for them.
    """

    structure: dict[str, Structure]
    fields: dict[str, Field]
    metadata: dict[str, Field] = field(default_factory=dict)

    @classmethod
    def of(cls, block: Tree, metadata: Mapping[str, Any] | None = None) -> ExampleSpec:
        """Return the spec of the examples in a batched block.

        Args:
            block: `(inputs, targets)`, each an array `(rows, ...)`, a `Ragged`, or a dict or tuple
                of them.
            metadata: Arrays by name, `(rows, ...)` of numbers or `(rows,)` of short bytes.

        Raises:
            ExampleStructureError: If a part is empty or not numeric, or has an invalid key.
        """
        fields = {path: Field.of(path, leaf) for path, leaf in flatten_example(block).items()}
        if not any(each.ragged or each.nbytes for each in fields.values()):
            raise ExampleStructureError(
                "the whole example", "empty (no bytes)", "at least one number"
            )
        metadata_fields = {}
        for name, column in sorted((metadata or {}).items()):
            if not _KEY.fullmatch(name):
                expected = "letters, digits, '_' and '-', because file names contain them"
                raise ExampleStructureError("metadata", f"the name {name!r}", expected)
            metadata_fields[METADATA + name] = Field.of(METADATA + name, column, _NUMERIC + "S")
        return cls(structure_of_example(block), fields, metadata_fields)

    @property
    def all_fields(self) -> dict[str, Field]:
        """Return the fields of examples and of metadata."""
        return {**self.fields, **self.metadata}

    @property
    def row_bytes(self) -> int:
        """Bytes of one example without its ragged fields and its metadata."""
        return sum(each.nbytes for each in self.fields.values() if not each.ragged)

    def flatten(self, block: Tree) -> dict[str, Column]:
        """Return the block's columns `(rows, ...)` by path.

        Raises:
            ExampleMismatchError: If the block differs from this spec, or its arrays have different
                numbers of rows.
        """
        columns = flatten_example(block)
        self.require(ExampleSpec.of(block), "block of examples")
        rows = {path: len(column) for path, column in columns.items()}
        first, expected = next(iter(rows.items()))
        for path, count in rows.items():
            if count != expected:
                raise ExampleMismatchError(path, f"{count} rows", f"{expected} rows ('{first}')")
        return {
            path: column if isinstance(column, Ragged) else np.asarray(column)
            for path, column in columns.items()
        }

    def unflatten(self, columns: Mapping[str, Any]) -> Tree:
        """Return `(inputs, targets)` built from values by path; dict keys are sorted."""
        return tuple(_build(node, part, columns) for part, node in self.structure.items())

    def paths(self, part: str) -> list[str]:
        """Return the paths of the fields of a part, `inputs` or `targets`."""
        return list(_paths(self.structure[part], part))

    def unflatten_part(self, part: str, columns: Mapping[str, Any]) -> Tree:
        """Return one part, `inputs` or `targets`, built from values by path."""
        return _build(self.structure[part], part, columns)

    def require(self, other: ExampleSpec, where: str) -> None:
        """Check that `other` has the same structure and fields.

        Metadata that only one of the two specs has is not a difference.

        Raises:
            ExampleMismatchError: If they differ; names the first difference.
        """
        if other.structure != self.structure:
            raise ExampleMismatchError(where, outline(other.structure), outline(self.structure))
        fields = other.all_fields
        for path, expected in self.all_fields.items():
            if fields.get(path, expected) != expected:
                raise ExampleMismatchError(f"{where}, {path}", str(fields[path]), str(expected))

    def joined(self, other: ExampleSpec) -> ExampleSpec:
        """Return this spec with the metadata of another, compatible spec added."""
        metadata = {**self.metadata, **other.metadata}
        return ExampleSpec(self.structure, self.fields, dict(sorted(metadata.items())))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values for `from_json`."""
        fields = {path: each.to_json() for path, each in self.fields.items()}
        record: dict[str, Any] = {"fields": fields, "structure": self.structure}
        if self.metadata:
            record["metadata"] = {path: each.to_json() for path, each in self.metadata.items()}
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ExampleSpec:
        """Return the spec from a record that `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: If the record is not valid.
        """
        structure = {part: record["structure"][part] for part in ("inputs", "targets")}
        paths = [path for part, node in structure.items() for path in _paths(node, part)]
        fields = {path: Field.from_json(path, record["fields"][path]) for path in paths}
        if fields.keys() != record["fields"].keys():
            raise ValueError("structure and fields name different arrays")
        metadata = {}
        for path, each in record.get("metadata", {}).items():
            if not path.startswith(METADATA):
                raise ValueError(f"metadata '{path}' does not begin with '{METADATA}'")
            metadata[path] = Field.from_json(path, each, _NUMERIC + "S")
            if metadata[path].ragged:
                raise ValueError(f"metadata '{path}' is ragged")
        if not any(each.ragged or each.nbytes for each in fields.values()):
            raise ValueError("examples have no bytes")  # then their number could not be checked
        return cls(structure, fields, metadata)


def structure_of_example(example: Tree) -> dict[str, Structure]:
    """Return the structure of `(inputs, targets)`; lists are treated as tuples."""
    inputs, targets = example
    return {"inputs": _structure_of(inputs), "targets": _structure_of(targets)}


def flatten_example(example: Tree) -> dict[str, Any]:
    """Return the leaves of `(inputs, targets)` by path, dict keys in sorted order.

    Raises:
        ExampleStructureError: If a dict or tuple is empty, or a key is not a plain name.
    """
    inputs, targets = example
    return dict(_leaves(inputs, "inputs")) | dict(_leaves(targets, "targets"))


def outline(structure: dict[str, Structure]) -> str:
    """Return a readable form of an example's structure, such as `((array, array), array)`."""
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
                    expected = (
                        "keys of letters, digits, '_' and '-', because file names contain them"
                    )
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
