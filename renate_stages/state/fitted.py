"""Fit the preprocessing of a data module to the new examples, and report rows that it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.data.rejected import REJECTED, Rejected, counted_by_reason, list_rejected
from renate_stages.errors import ChangedPreprocessingError, UnusableLabelsError
from renate_stages.errors.wording import counted
from renate_stages.memory import ExampleStore, Ragged
from renate_stages.memory.spec import IGNORED
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


def take_targets(new: Preprocessing, names: Sequence[str], parent: Preprocessing | None) -> None:
    """Set the names of the columns of targets, whose order is that of the model's outputs.

    Args:
        new: The preprocessing of the new data.
        names: The names, if there are several columns.
        parent: The preprocessing of the parent.

    Raises:
        ChangedPreprocessingError: If a column has another place than in earlier updates.
    """
    known = () if parent is None else parent.targets
    for place, name in enumerate(names):
        if name in known and known.index(name) != place:
            what = f"target lists {', '.join(names)}; in earlier updates, it was {', '.join(known)}"
            cure = (
                "list columns in the order of earlier updates, which is that of the model's outputs"
            )
            raise ChangedPreprocessingError("data.module.target", what, cure)
    new.targets = tuple(names)


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
    """Return how many outputs a new model needs for the targets; None if they do not show it.

    Raises:
        UnusableLabelsError: If no row has a label, all have the same one, or one is below 0 or far
            above the others.
    """
    spec = stores["train"].spec
    field = None if spec is None else spec.fields.get("targets")
    if field is None:
        return None
    if task == "binary":
        return 1
    if names or (field.dtype.kind in "iu" and not field.shape and task != "regression"):
        return _count_of_labels(stores, names, is_own_task=":" in task)
    return int(np.prod(field.shape, dtype=np.int64)) if not field.ragged else None


def _count_of_labels(
    stores: Mapping[str, ExampleStore], names: Sequence[str], *, is_own_task: bool
) -> int:
    """Return the number of labels; those of a task of the user's own may have another meaning."""
    columns = [store.column("targets") for store in stores.values() if len(store)]
    values = [each.values if isinstance(each, Ragged) else each for each in columns]
    used = np.unique(np.concatenate([np.unique(each) for each in values]))
    used = used[used != IGNORED]
    if not len(used):
        raise UnusableLabelsError(
            "no row of the first update has a label, so a model can learn nothing",
            "name the column with labels in data.module.target, or add rows that have labels",
        )
    count = len(names) or int(used[-1]) + 1
    if is_own_task:
        return count
    if used[0] < 0:
        raise UnusableLabelsError(
            f"the label {used[0]} is below 0, and the model has no such output",
            f"number labels from 0 on, or give them names; {IGNORED} marks rows without a label",
        )
    if not names and count > max(1000, 10 * len(used)):
        raise UnusableLabelsError(
            f"{counted(len(used), 'label')} from {used[0]} to {used[-1]} would make a model with "
            f"{count} outputs, because label c means output c",
            "number labels from 0 on, or let the data have names of labels, as texts",
        )
    if count < 2:
        known = names[0] if names else "0"
        raise UnusableLabelsError(
            f"all rows of the first update have the label {known!r}, and a model needs two",
            "add rows with another label, or list the labels to come in data.labels.order",
        )
    return count


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
