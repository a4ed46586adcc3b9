"""Accuracy by class and by the values of metadata fields, over all holdouts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from renate_stages.errors import SliceError

if TYPE_CHECKING:
    from renate_stages.memory import ExampleStore

UNKNOWN = "unknown"
MOST = 100  # values of a field; with more, each slice is too small to be useful


@dataclass(frozen=True)
class Part:
    """The accuracy on a part of the examples.

    Args:
        rows: Number of examples.
        accuracy: Share of correct predictions.
    """

    rows: int
    accuracy: float


def by_value(values: np.ndarray, correct: np.ndarray) -> dict[str, Part]:
    """Return the accuracy on the examples with each value, ascending.

    Args:
        values: Label or metadata value of each example: numbers, bools or texts `(rows,)`.
        correct: Whether the prediction is correct, bool `(rows,)`.
    """
    distinct, places = np.unique(values, return_inverse=True)
    rows = np.bincount(places, minlength=len(distinct))
    right = np.bincount(places, weights=correct, minlength=len(distinct))
    return {
        str(value): Part(int(count), float(share))
        for value, count, share in zip(distinct.tolist(), rows, right / rows, strict=True)
    }


def slices_of(
    fields: Collection[str], holdouts: Mapping[int, ExampleStore]
) -> dict[str, dict[int, np.ndarray]]:
    """Return the slice of each example of the holdouts.

    Args:
        fields: Names of metadata fields.
        holdouts: Stores by update.

    Returns:
        For each field and holdout, the value of each row as text, `(rows,)`; `unknown` for examples
        without the field, with an empty text or with NaN.

    Raises:
        SliceError: If no holdout has a field, its values are not single numbers or texts, or it has
            more than 100 values.
    """
    return {field: _slice(field, holdouts) for field in fields}


def _slice(field: str, holdouts: Mapping[int, ExampleStore]) -> dict[int, np.ndarray]:
    columns = {number: store.metadata(field) for number, store in holdouts.items()}
    if holdouts and all(each is None for each in columns.values()):
        known = {
            name.removeprefix("meta.")
            for store in holdouts.values()
            for name in (store.spec.metadata if store.spec else ())
        }
        raise SliceError(
            field, f"no example has this field (known fields: {', '.join(sorted(known))})"
        )
    texts = {}
    for number, values in columns.items():
        if values is None:
            texts[number] = np.full(len(holdouts[number]), UNKNOWN)
            continue
        if values.ndim != 1:
            raise SliceError(
                field, f"its values have shape {values.shape[1:]}, expected one value per example"
            )
        known = holdouts[number].known(field)
        texts[number] = np.array(
            [
                _text(value) if is_known else UNKNOWN
                for value, is_known in zip(values.tolist(), known, strict=True)
            ]
        )
    count = len({text for values in texts.values() for text in np.unique(values).tolist()})
    if count > MOST:
        raise SliceError(field, f"it has {count} values, expected at most {MOST}")
    return texts


def _text(value: object) -> str:
    return (value.decode() or UNKNOWN) if isinstance(value, bytes) else str(value)
