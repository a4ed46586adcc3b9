"""Validate dataset items: `(inputs, targets)`, or `(inputs, targets, metadata)`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from renate_stages.errors import (
    InvalidMetadataError,
    ItemMismatchError,
    NotAPairError,
    UnknownFieldError,
    UnstorableValueError,
)
from renate_stages.memory import ExampleSpec, Ragged, Tree
from renate_stages.memory.identity import given_id, to_array
from renate_stages.memory.row_weights import EXPECTED, WEIGHT, is_weight
from renate_stages.memory.spec import (
    IGNORED,
    TEXT_BYTES,
    Structure,
    flatten_example,
    outline,
    structure_of_example,
)
from renate_stages.preprocessing.decoders import is_image

OWN_METADATA = ("update",)  # metadata that the pipeline sets


@dataclass(frozen=True)
class Item:
    """The parts of one dataset item.

    Args:
        structure: The structure of `(inputs, targets)`.
        values: Arrays by path, without a batch dimension.
        metadata: Metadata by name, without a batch dimension.
        decoders: Decoder names of the paths that are stored as bytes.
        named: Whether the targets are names of labels; None if the row is ignored.
    """

    structure: dict[str, Structure]
    values: dict[str, np.ndarray]
    metadata: dict[str, np.ndarray]
    decoders: dict[str, str]
    named: bool | None = False


@dataclass(frozen=True)
class ItemReader:
    """Splits items of a dataset into parts and validates them.

    Args:
        split: "train", "val" or "test", for messages.
        ragged: Paths whose first dimension varies between items.
        numbers: Returns targets with names of labels replaced by numbers, and others as they are.
            None: targets are not names.
    """

    split: str
    ragged: Collection[str] = ()
    numbers: Callable[[Any], Any] | None = None

    def read(self, item: Any, index: int) -> Item:
        """Return an item's parts.

        Raises:
            NotAPairError: If it is neither a pair nor a pair with a dict.
            UnstorableValueError: If it contains anything but numbers or an encoded image.
            InvalidMetadataError: If its metadata cannot be stored.
            UnknownFieldError: If it does not have a part that is listed in `ragged`.
            ExampleStructureError: If a dict or tuple is empty, or a key is not a plain name.
        """
        metadata = self.metadata(item, index)
        targets = item[1] if self.numbers is None else self.numbers(item[1])
        named = None if _is_ignored(targets) else targets is not item[1]
        pair = (self._lists(item[0], "inputs"), self._lists(targets, "targets"))
        leaves = flatten_example(pair)
        if unknown := sorted(set(self.ragged) - leaves.keys()):
            raise UnknownFieldError("ragged_fields of the data module", unknown[0], leaves)
        decoders = {path: "image" for path, leaf in leaves.items() if isinstance(leaf, bytes)}
        values = {path: self.array(leaf, index, path) for path, leaf in leaves.items()}
        return Item(structure_of_example(pair), values, metadata, decoders, named)

    def metadata(self, item: Any, index: int) -> dict[str, np.ndarray]:
        """Return only an item's metadata; raise as `read`."""
        if not _is_pair(item):
            raise NotAPairError(self.split, index, _outline(item))
        return {} if len(item) == 2 else self._metadata(item[2], index)

    def spec(self, item: Item) -> ExampleSpec:
        """Return the spec of examples like this item."""
        columns = {
            path: Ragged.of([value], item.decoders.get(path))
            if path in self.ragged or path in item.decoders
            else value[None]
            for path, value in item.values.items()
        }
        block = ExampleSpec(item.structure, {}).unflatten(columns)
        return ExampleSpec.of(block, {name: each[None] for name, each in item.metadata.items()})

    def empty(self, item: Item) -> set[str]:
        """Return the ragged paths at which an item is empty, so that its dtype is arbitrary."""
        return {path for path in self.ragged if not item.values[path].size}

    def with_dtypes(self, spec: ExampleSpec, item: Item, paths: Collection[str]) -> ExampleSpec:
        """Return a spec in which some fields have the dtypes and shapes of an item."""
        known = self.spec(item).fields
        fields = {
            path: known[path] if path in paths else each for path, each in spec.fields.items()
        }
        return ExampleSpec(spec.structure, fields, spec.metadata)

    def require(self, item: Item, spec: ExampleSpec, index: int) -> None:
        """Raise `ItemMismatchError` if an item differs from the first one."""
        if item.structure != spec.structure:
            found, expected = outline(item.structure), outline(spec.structure)
            where = "its structure (inputs, targets)"
            raise ItemMismatchError(self.split, index, where, found, expected)
        if names := {f"meta.{name}" for name in item.metadata} ^ spec.metadata.keys():
            where = f"metadata {', '.join(sorted(name[5:] for name in names))}"
            here = names <= {f"meta.{name}" for name in item.metadata}
            found, expected = ("present", "none") if here else ("missing", "it")
            raise ItemMismatchError(self.split, index, where, found, expected)
        for path, field in spec.fields.items():
            value = item.values[path]
            shape = value.shape[1:] if field.ragged else value.shape
            empty = field.ragged and not value.size  # an empty list has no dtype or shape
            known = field.decoder == item.decoders.get(path)
            fits = empty or (shape == field.shape and value.dtype == field.dtype)
            if not fits or not known:
                found = f"{value.dtype} {value.shape}"
                raise ItemMismatchError(self.split, index, path, found, str(field))
        for path, field in spec.metadata.items():
            value = item.metadata[path.removeprefix("meta.")]
            if (value.shape, value.dtype) != (field.shape, field.dtype):
                found = f"{value.dtype} {value.shape}"
                raise ItemMismatchError(self.split, index, path, found, str(field))

    def array(self, leaf: Any, index: int, path: str) -> np.ndarray:
        """Return one leaf of an item as an array."""
        if isinstance(leaf, Tensor):
            try:
                return leaf.detach().cpu().numpy()
            except (RuntimeError, TypeError) as error:
                found = f"a {leaf.layout} tensor of {leaf.dtype}"
                cure = "return a dense tensor of a NumPy dtype, with .to_dense() or .float()"
                raise UnstorableValueError(self.split, index, path, found, cure) from error
        if isinstance(leaf, np.ndarray | np.generic):
            array = np.asarray(leaf)
            if array.dtype.kind in "biufc":
                return array.astype(array.dtype.newbyteorder("<"), copy=False)
            cure = "return numbers, for example with .astype(...) or one number per word"
            raise UnstorableValueError(self.split, index, path, f"an array of {array.dtype}", cure)
        if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
            cure = "return a number of 64 bits, or a float"
            raise UnstorableValueError(
                self.split, index, path, "a whole number of more than 64 bits", cure
            )
        if isinstance(leaf, bool | int):
            return np.asarray(leaf, dtype=bool if isinstance(leaf, bool) else np.int64)
        if isinstance(leaf, float):
            return np.asarray(leaf, dtype=np.float32)
        if isinstance(leaf, bytes) and is_image(leaf):
            return np.frombuffer(leaf, np.uint8)
        raise UnstorableValueError(self.split, index, path, f"a {_kind(leaf)}", _cure(leaf))

    def _lists(self, tree: Tree, path: str) -> Tree:
        """Convert lists of numbers at ragged paths to arrays, and other lists to tuples."""
        if path in self.ragged and isinstance(tree, list | tuple):
            array = np.asarray(tree)
            return array.astype(np.float32) if array.dtype.kind == "f" else array
        if isinstance(tree, Mapping):
            return {key: self._lists(child, f"{path}.{key}") for key, child in tree.items()}
        if isinstance(tree, tuple | list):
            return tuple(self._lists(child, f"{path}.{i}") for i, child in enumerate(tree))
        return tree

    def _metadata(self, given: Mapping[str, Any], index: int) -> dict[str, np.ndarray]:
        return {name: self.metadata_value(name, value, index) for name, value in given.items()}

    def metadata_value(self, name: str, value: Any, index: int) -> np.ndarray:
        """Return one value of an item's metadata in the form in which it is stored.

        Raises:
            InvalidMetadataError: If it cannot be stored.
        """
        if isinstance(value, np.generic | Tensor):
            value = value.item() if value.ndim == 0 else value
        where = f"{self.split} data, item {index}: metadata {name!r}"
        if name in OWN_METADATA:
            raise InvalidMetadataError(
                where, value, "another name, because the pipeline sets this one"
            )
        if name == WEIGHT:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not is_weight(np.array([float(value)])).all():
                raise InvalidMetadataError(where, value, EXPECTED)
            return np.asarray(value, np.float64)
        if name == "id":
            if not isinstance(value, str | int) or isinstance(value, bool):
                raise InvalidMetadataError(where, value, "a string or an integer")
            if not _is_utf8(str(value)):
                raise InvalidMetadataError(where, value, "a string that can be encoded as UTF-8")
            return to_array([given_id(str(value))])[0]
        if isinstance(value, bool):
            return np.asarray(value)
        if isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
            return np.asarray(value, np.int64 if isinstance(value, int) else np.float64)
        if isinstance(value, str) and _is_short(value):
            return np.asarray(value.encode(), f"S{TEXT_BYTES}")
        expected = f"a 64-bit number, True, False, or a string of at most {TEXT_BYTES} bytes"
        raise InvalidMetadataError(where, value, expected)


def _is_pair(item: Any) -> bool:
    if not isinstance(item, tuple | list):
        return False
    return len(item) == 2 or (len(item) == 3 and isinstance(item[2], Mapping))


def _is_ignored(targets: Any) -> bool:
    is_number = isinstance(targets, int | np.integer)
    is_number = is_number or (isinstance(targets, Tensor) and not targets.ndim)
    return is_number and int(targets) == IGNORED


def _is_short(text: str) -> bool:
    return _is_utf8(text) and len(text.encode()) <= TEXT_BYTES and "\0" not in text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # unpaired surrogates
        return False
    return True


def _outline(item: Any) -> str:
    kind = "None" if item is None else f"a {type(item).__name__}"
    return f"{kind} of {len(item)}" if isinstance(item, tuple | list) else kind


def _kind(leaf: Any) -> str:
    kind = type(leaf)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _cure(leaf: Any) -> str:
    if isinstance(leaf, str):
        return (
            "return token ids or a class number, such as torch.tensor(tokenizer(text)['input_ids'])"
        )
    if isinstance(leaf, bytes):
        return "return the bytes of a JPEG or PNG file, or np.frombuffer(data, np.uint8)"
    if type(leaf).__module__.startswith("PIL."):
        return (
            "return torch.from_numpy(np.array(image)), uint8, or the image file's bytes, and do "
            "the rest in a transform"
        )
    if leaf is None:
        return "return a number instead"
    return "convert it with torch.as_tensor(...)"
