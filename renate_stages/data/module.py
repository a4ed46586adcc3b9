"""`RenateDataModule`: the base class of a user's data module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from renate_stages.data.rejected import Rejected
from renate_stages.errors import InvalidShareError, MissingSplitError
from renate_stages.preprocessing.base import Preprocessing


class RenateDataModule(ABC):
    """Turns the files of one update into datasets of `(inputs, targets)`.

    Override `setup()`, and `prepare_data()` if files must be fetched first. Return raw values
    without augmentation, for example images as uint8: the data is stored, and the transforms in
    `renate_config.py` are applied each time an example is read.

        class Letters(RenateDataModule):
            def setup(self) -> None:
                images = torch.from_numpy(np.load(self._data_path / "images.npy"))
                labels = torch.from_numpy(np.load(self._data_path / "labels.npy"))
                data = TensorDataset(images, labels)
                self._train_data, self._val_data = self._split_train_val_data(data)

    If the data is in columns, such as those of a table, return a `ColumnDataset`, which is read in
    blocks. Items may end with a dict of metadata, which is stored with the example: `(inputs, targets,
    {"id": "customer-17", "source": "eu"})`. The `id` identifies an example that you want to forget;
    without an id, its content does. List inputs of varying length (tokens, series) in
    `ragged_fields`. Bytes of JPEG and PNG files are stored unchanged and decoded when they are read.

    Attributes:
        ragged_fields: Paths, such as `inputs` or `inputs.input_ids`, whose first dimension varies
            between items.
        feature_names: For tabular data, the names of all input values in their order, which the
            shift report uses; if empty, it uses their positions.
        categorical_features: Those of `feature_names` whose values are codes of categories, which
            have no order. Shift tests compare their frequencies.
        excluded_features: Those of `feature_names` that shift tests leave out, such as dates and ids:
            they differ in each update.
        label_order: Names of labels to number first, in this order, if the data is the first with
            them; others are numbered as they appear.
        preprocessing: What is fitted on the data. Before `setup()` it is that of the parent, or None;
            afterwards a module that has one sets it. `prepare` fits it and keeps it in the state.
        fits_data: Whether it is known before `setup()` that something will be fitted on the data.
        target_names: Names of the columns of the targets, if there are several. Their order is that
            of the model's outputs, so it never changes.
        row_names: Names of all rows if names are their ids. A new row with the name of an earlier one
            but other inputs is then refused.
        rejected: Rows that `setup()` has left out because they cannot be read, with reasons.
        rows_seen: Rows that it has found, with the rejected ones.

    Args:
        data_path: Folder with the update's data.
        val_size: Share of the training data to use for validation, in [0, 1).
        seed: Seed of the split.

    Raises:
        InvalidShareError: If `val_size` is outside [0, 1).
    """

    ragged_fields: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    categorical_features: tuple[str, ...] = ()
    excluded_features: tuple[str, ...] = ()
    label_order: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    fits_data: bool = False
    target_names: tuple[str, ...] = ()
    row_names: Sequence[str] = ()

    def __init__(self, data_path: str | Path, val_size: float = 0.0, seed: int = 0) -> None:
        self._data_path = Path(data_path)
        self._val_size = share("val_size", val_size)
        self._seed = seed
        self._train_data: Dataset | None = None
        self._val_data: Dataset | None = None
        self._test_data: Dataset | None = None
        self.rejected: list[Rejected] = []
        self.rows_seen = 0

    def prepare_data(self) -> None:  # noqa: B027 -- optional
        """Fetch or unpack files, if needed; called once, before `setup()`."""

    @abstractmethod
    def setup(self) -> None:
        """Set `_train_data`, and `_val_data` and `_test_data` if you have them.

        If `_val_data` or `_test_data` stays None, `prepare` uses a share of the training rows.
        """

    def train_data(self) -> Dataset:
        """Return the training data; raise `MissingSplitError` if `setup()` did not set it."""
        if self._train_data is None:
            raise MissingSplitError(type(self).__name__, "train_data")
        return self._train_data

    def val_data(self) -> Dataset | None:
        """Return the validation data, or None."""
        return self._val_data

    def test_data(self) -> Dataset | None:
        """Return the test data, or None."""
        return self._test_data

    def fingerprint(self) -> str | None:
        """Return a text that identifies what was fitted outside the pipeline, or None.

        It is the content of a vocabulary, or the means of a scaler: anything with which inputs are
        encoded. Examples of earlier updates were encoded with the same, so `prepare` refuses an
        update in which the text differs. Called after `setup()`.
        """
        return None

    def _split_train_val_data(self, train_data: Dataset) -> tuple[Dataset, Dataset | None]:
        """Split the data at random into training and validation data; None without a row."""
        train, val = split(train_data, self._val_size, self._seed)
        return train, (val if len(val) else None)


def share(name: str, value: float) -> float:
    """Return `value` if it is in [0, 1), otherwise raise `InvalidShareError`."""
    if not 0 <= value < 1:
        raise InvalidShareError(name, value)
    return value


def split(dataset: Dataset, size: float, seed: int) -> tuple[Subset, Subset]:
    """Split a dataset at random into shares of `1 - size` and `size`, both in original order.

    Args:
        dataset: A dataset with a length.
        size: Share of the second part, in [0, 1), rounded to whole rows; the first part has at
            least one row.
        seed: Seed of the split; equal seeds and lengths give equal splits.
    """
    total = len(dataset)  # pyright: ignore[reportArgumentType]
    count = min(round(size * total), max(0, total - 1))
    rows = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    first, second = rows[count:].sort().values, rows[:count].sort().values
    return subset(dataset, first.numpy()), subset(dataset, second.numpy())


def subset(dataset: Dataset, rows: np.ndarray) -> Subset:
    """Return rows of a dataset; millions of row numbers need 8 bytes each, a list of them 40.

    Args:
        dataset: The dataset.
        rows: int64 `(n,)`.
    """
    return Subset(dataset, array("q", rows.tobytes()))
