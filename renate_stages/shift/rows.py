"""Convert stored examples to rows of numbers: raw, the model's features, or from the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.errors import DataModuleError, UncomparableRowsError, UserConfigError, user_code
from renate_stages.memory import ExampleStore
from renate_stages.memory.spec import Field

if TYPE_CHECKING:
    from renate_stages.data.stored import ConcatStored
    from renate_stages.models import RenateModule

CODES = "inputs.categorical"  # the part of a table's inputs whose columns come last
TEXTS = (
    "inputs.text."  # begins the paths of a table's text columns, which are compared by their words
)
MOST_RAW = 10_000  # numbers per example; more raw values cost much and mean little


@dataclass(frozen=True)
class Sample:
    """A sample of rows from several stores, in the order of the stores.

    Args:
        stores: Pairs of a store and its sampled rows, int64.
    """

    stores: tuple[tuple[ExampleStore, np.ndarray], ...]

    @classmethod
    def draw(
        cls,
        stores: Sequence[tuple[ExampleStore, np.ndarray]],
        most: int,
        generator: np.random.Generator,
    ) -> Sample:
        """Draw at most `most` rows uniformly, without replacement.

        Args:
            stores: Pairs of a store and the rows of it to draw from, int64, ascending.
            most: Maximum number of rows from all stores together.
            generator: Source of randomness.
        """
        offsets = np.cumsum([0] + [len(rows) for _, rows in stores])
        total = int(offsets[-1])
        if total > most:
            chosen = np.sort(generator.choice(total, most, replace=False))
        else:
            chosen = np.arange(total)
        parts = [
            (store, rows[chosen[(chosen >= first) & (chosen < first + len(rows))] - first])
            for (store, rows), first in zip(stores, offsets[:-1].tolist(), strict=True)
        ]
        return cls(tuple((store, rows) for store, rows in parts if len(rows)))

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.stores)

    def labels(self) -> np.ndarray | None:
        """Return the class labels, int64 `(len,)`; None if a target is not a single integer."""
        labels = []
        for store, rows in self.stores:
            field = store.spec.fields.get("targets") if store.spec else None
            if field is None or field.ragged or field.shape or field.dtype.kind not in "iu":
                return None
            labels.append(np.asarray(store.columns(rows, ["targets"])["targets"], dtype=np.int64))
        return np.concatenate(labels)

    def dataset(self, transforms: tuple[Callable | None, Callable | None]) -> ConcatStored:
        """Return the sample as a dataset, with transforms of inputs and targets."""
        from renate_stages.data import ConcatStored, StoredDataset

        return ConcatStored(
            [StoredDataset(store, rows, *transforms) for store, rows in self.stores]
        )


def raw_fields(sample: Sample) -> list[str] | None:
    """Return the paths of the inputs, without those of a table's texts if there are others.

    None if their shapes differ or are too large.
    """
    inputs, *others = (_inputs_of(store) for store, _ in sample.stores)
    if any(other != inputs for other in others):
        return None
    columns = {path: each for path, each in inputs.items() if not path.startswith(TEXTS)}
    inputs = columns or inputs
    if any(each.ragged for each in inputs.values()):
        return None
    numbers = sum(int(np.prod(each.shape)) for each in inputs.values())
    if numbers > MOST_RAW:
        return None
    return sorted(inputs, key=lambda path: path == CODES and len(inputs) > 1)


def raw_are_columns(sample: Sample) -> bool:
    """Return whether raw inputs are columns, which may differ in unit, and not pixels of an image."""
    fields = _inputs_of(sample.stores[0][0])
    return all(len(fields[path].shape) <= 1 for path in raw_fields(sample) or fields)


def _inputs_of(store: ExampleStore) -> dict[str, Field]:
    fields = {} if store.spec is None else store.spec.fields
    return {path: each for path, each in fields.items() if path.split(".")[0] == "inputs"}


def raw_rows(sample: Sample) -> np.ndarray:
    """Return the stored inputs, flattened, float32 `(n, d)`.

    Raises:
        UncomparableRowsError: If examples differ in shape, are encoded, or are very large.
    """
    paths = raw_fields(sample)
    if paths is None:
        raise UncomparableRowsError(
            f"inputs differ in shape, are encoded, or have more than {MOST_RAW} numbers each",
            "set shift.features in params.yaml to model, or to feature_fn and define that function",
        )
    blocks = []
    for store, rows in sample.stores:
        columns = store.columns(rows, paths)
        parts = [np.asarray(columns[path]).reshape(len(rows), -1) for path in paths]
        blocks.append(np.concatenate([part.astype(np.float32) for part in parts], axis=1))
    return np.concatenate(blocks)


def raw_names(sample: Sample, given: Sequence[str] = ()) -> list[str]:
    """Return the d names of the columns of `raw_rows`.

    Without given names, a name is the number's position in an example: `[3, 4]` if inputs are one
    array, `age` or `image[3, 4]` if they are several.

    Args:
        sample: The sample passed to `raw_rows`.
        given: `feature_names` of the user's data module.

    Raises:
        DataModuleError: If the number of given names is wrong, or they are not unique.
    """
    names = []
    for path in raw_fields(sample) or ():
        name = path.removeprefix("inputs").removeprefix(".")
        places = np.ndindex(*sample.stores[0][0].spec.fields[path].shape)  # pyright: ignore[reportOptionalMemberAccess]
        names += [name + (str(list(place)) if place else "") or "inputs" for place in places]
    if not given:
        return names
    if len(given) != len(names) or len(set(given)) != len(given):
        raise DataModuleError(
            f"feature_names has {len(given)} names, {len(set(given))} of them unique, but an "
            f"example has {len(names)} numbers",
            "give each number of an example's inputs a unique name, or remove feature_names",
        )
    return list(given)


def texts_of(sample: Sample) -> np.ndarray | None:
    """Return the stored texts, an array of str `(n,)`; None if the inputs are not texts.

    Texts are ragged bytes without a decoder that are valid UTF-8. Several, such as the two of a pair
    or the text columns of a table, are joined.
    """
    texts: list[str] = []
    for store, rows in sample.stores:
        inputs = _inputs_of(store)
        inputs = {path: inputs[path] for path in inputs if path.startswith(TEXTS)} or inputs
        for each in inputs.values():
            if not each.ragged or each.dtype != np.uint8 or each.shape or each.decoder:
                return None
        columns = store.columns(rows, list(inputs))
        try:
            parts = [[row.tobytes().decode() for row in columns[path]] for path in inputs]
        except UnicodeDecodeError:
            return None
        texts += [" ".join(several) for several in zip(*parts, strict=True)]
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


def model_rows(
    sample: Sample, model: RenateModule, transform: Callable | None, task_id: str, batch_size: int
) -> np.ndarray:
    """Return the model's features before its last layer, float32 `(n, d)`.

    They are computed in evaluation mode and without gradients (`models.features`).

    Raises:
        UncomparableRowsError: If the model has no last layer that takes one row for each example.
    """
    from renate_stages.models.features import features_before_head

    blocks = []
    for batch in _inputs(sample, transform, batch_size):
        features = features_before_head(model, batch, task_id)
        if features is None:
            raise UncomparableRowsError(
                "the model has no part `features`, and no last layer that takes a tensor (B, F) once",
                "name the part before the last layer `features`, name the last layer in the model's "
                "attribute `output_layer`, or set shift.features to raw or feature_fn",
            )
        blocks.append(features.numpy())
    return np.concatenate(blocks)


def function_rows(
    sample: Sample, function: Callable[[Any], Any], transform: Callable | None, batch_size: int
) -> np.ndarray:
    """Return the outputs of the user's function for batches of inputs, float32 `(n, d)`.

    A module is set to evaluation mode first.

    Raises:
        UserConfigError: If the function does not return one row of numbers for each example.
    """
    import torch

    if isinstance(function, torch.nn.Module):
        function.eval()
    blocks = []
    with torch.inference_mode():
        for batch, size in zip(
            _inputs(sample, transform, batch_size), _sizes(sample, batch_size), strict=True
        ):
            with user_code.running("what feature_fn returned"):
                block = np.asarray(function(batch), dtype=np.float32)
            if block.ndim != 2 or len(block) != size:
                raise UserConfigError(
                    "renate_config.py",
                    f"the function that feature_fn returned gives shape {block.shape} for {size} "
                    "examples",
                    "return a function that maps a batch of inputs to shape (examples, features)",
                )
            blocks.append(block)
    return np.concatenate(blocks)


def _inputs(sample: Sample, transform: Callable | None, batch_size: int) -> Iterator[Any]:
    dataset = sample.dataset((transform, None))
    for start in range(0, len(dataset), batch_size):
        stop = min(start + batch_size, len(dataset))
        yield dataset.__getitems__(list(range(start, stop)))[0]


def _sizes(sample: Sample, batch_size: int) -> list[int]:
    return [min(batch_size, len(sample) - start) for start in range(0, len(sample), batch_size)]
