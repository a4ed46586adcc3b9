"""Fit the preprocessing of a data module to the new examples, and report rows that it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.data.rejected import REJECTED, Rejected, counted_by_reason, list_rejected
from renate_stages.errors import ChangedPreprocessingError
from renate_stages.memory import ExampleStore
from renate_stages.preprocessing import Preprocessing


def check_kind(parent: Preprocessing | None, new: Preprocessing | None) -> None:
    """Check that new data is read by the kind of data module that read the parent's.

    Raises:
        ChangedPreprocessingError: If the parent has a preprocessing, and the new data none or another.
    """
    if parent is not None and (new is None or new.kind != parent.kind):
        now = "has no preprocessing" if new is None else f"is for {new.kind}"
        what = f"earlier data was read by a data module for {parent.kind}, but that of this update {now}"
        cure = "restore data.module in params.yaml; examples of one project must have one form"
        raise ChangedPreprocessingError("data.module", what, cure)


def fit_preprocessing(
    preprocessing: Preprocessing,
    stores: Mapping[str, ExampleStore],
    names: Sequence[str],
    task: str,
    folder: Path,
) -> dict[str, Any]:
    """Fit a preprocessing to the new training rows, and write it.

    Args:
        preprocessing: That of the data module, which starts as the parent's.
        stores: The new examples by the name of the split.
        names: Names of the labels.
        task: Name of the task, as in `params.yaml`.
        folder: Folder of the prepared data.

    Returns:
        What the new rows have anew, as JSON values for `metrics/data.json`.
    """
    found = preprocessing.fit(stores["train"])
    if preprocessing.built is None:
        outputs = outputs_of(stores, names, task)
        given: dict[str, Any] = {} if outputs is None else {"num_outputs": outputs}
        if task == "regression":
            given |= target_moments(stores["train"])
        preprocessing.built = preprocessing.sizes_of_new_model() | given
    preprocessing.write(folder)
    return found


def outputs_of(stores: Mapping[str, ExampleStore], names: Sequence[str], task: str) -> int | None:
    """Return how many outputs a new model needs for the targets; None if they do not show it."""
    spec = stores["train"].spec
    field = None if spec is None else spec.fields.get("targets")
    if field is None:
        return None
    if task == "binary":
        return 1
    if names:
        return len(names)
    if field.dtype.kind in "iu" and not field.shape:
        targets = [store.column("targets") for store in stores.values() if len(store)]
        values = [each.values if hasattr(each, "values") else each for each in targets]
        return max(int(np.max(each)) for each in values if len(each)) + 1
    return int(np.prod(field.shape, dtype=np.int64)) if not field.ragged else None


def target_moments(train: ExampleStore) -> dict[str, list[float]]:
    """Return the mean and the standard deviation of each target; 1 in place of a deviation of 0."""
    targets = np.asarray(train.column("targets"), dtype=np.float64).reshape(len(train), -1)
    means, scales = targets.mean(axis=0), targets.std(axis=0)
    return {"means": means.tolist(), "scales": np.where(scales > 0, scales, 1.0).tolist()}


def write_rejected(rejected: Sequence[Rejected], folder: Path) -> dict[str, Any]:
    """List rejected rows in `rejected.csv`, if there are any.

    Args:
        rejected: The rows that the data module left out.
        folder: Folder of the prepared data.

    Returns:
        Their number, and the number by reason, for `metrics/data.json`.
    """
    if rejected:
        list_rejected(rejected, folder / REJECTED)
    return {"rows": len(rejected), "reasons": counted_by_reason(rejected)}
