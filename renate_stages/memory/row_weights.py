"""Row weights: how much a row counts in the training loss, stored as the metadata `weight`."""

from __future__ import annotations

import numpy as np

from renate_stages.errors import NoRowWeighsError
from renate_stages.memory.spec import METADATA
from renate_stages.memory.store import ExampleStore

WEIGHT = "weight"  # the metadata field
PATH = METADATA + WEIGHT
LEAST, MOST = 1e-20, 1e20  # sums and products of weights and losses stay within float32
EXPECTED = f"0, or a number from {LEAST:g} to {MOST:g}"


def is_weight(values: np.ndarray) -> np.ndarray:
    """Return which numbers can be weights, bool `(n,)`: 0, or from `LEAST` to `MOST`.

    Args:
        values: Any numeric dtype, `(n,)`; NaN is no weight.
    """
    return (values == 0) | ((values >= LEAST) & (values <= MOST))


def is_weighted(store: ExampleStore) -> bool:
    """Return whether any row of a store has a weight."""
    return store.spec is not None and PATH in store.spec.metadata


def weights_in(store: ExampleStore, rows: np.ndarray | None = None) -> np.ndarray | None:
    """Return the weights of rows, float32 `(n,)`; None if no row of the store has a weight.

    Rows that came without a weight, in another update, count as 1.

    Args:
        store: The store.
        rows: Live row numbers, int64 `(n,)`; None: all.
    """
    if not is_weighted(store):
        return None
    rows = np.arange(len(store)) if rows is None else rows
    column = np.asarray(store.columns(rows, [PATH])[PATH])
    return np.where(np.isnan(column), 1.0, column).astype(np.float32)


def check_weights(store: ExampleStore, where: str) -> None:
    """Check that training on a store can change a model.

    Args:
        store: The examples to train on.
        where: What they are, for the message.

    Raises:
        NoRowWeighsError: If it has rows, and all their weights are 0.
    """
    weights = weights_in(store)
    if weights is not None and len(weights) and not weights.any():
        raise NoRowWeighsError(where, len(weights))


def figures_of(store: ExampleStore) -> dict[str, float]:
    """Return the least, mean and largest weight, and the number of rows of weight 0.

    The dict is empty if no row of the store has a weight.
    """
    weights = weights_in(store)
    if weights is None or not len(weights):
        return {}
    exact = weights.astype(np.float64)
    return {
        "least": float(exact.min()),
        "mean": float(exact.mean()),
        "largest": float(exact.max()),
        "zero": int((exact == 0).sum()),
    }
