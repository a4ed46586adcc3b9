"""`RenateDataModule`: the class by which a user gives the data of an update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset

from renate_stages.errors import InvalidShareError, MissingSplitError


class RenateDataModule(ABC):
    """Turns the files of one update into datasets of `(inputs, targets)`.

    Override `setup()`, and `prepare_data()` where files must first be fetched. Return raw values,
    images as uint8 for instance, not augmented ones: what `setup()` gives is stored, and the
    transforms of `renate_config.py` are applied each time an example is read.

        class Letters(RenateDataModule):
            def setup(self) -> None:
                images = torch.from_numpy(np.load(self._data_path / "images.npy"))
                labels = torch.from_numpy(np.load(self._data_path / "labels.npy"))
                data = TensorDataset(images, labels)
                self._train_data, self._val_data = self._split_train_val_data(data)

    Items may end with a dict of metadata, which is kept beside the example: `(inputs, targets,
    {"id": "customer-17", "source": "eu"})`. By `id` an example is found when it is to be forgotten;
    without one, by its content. Inputs of differing length (tokens, series) are named in
    `ragged_fields`; the bytes of JPEG and PNG files are kept as they are, and decoded on reading.

    Attributes:
        ragged_fields: Paths, such as `inputs` or `inputs.input_ids`, whose first dimension differs
            from item to item.
        feature_names: What the numbers of an example's inputs are called, as many as there are, in
            their order; empty: by their place. For tabular data: shift is told by them.

    Args:
        data_path: Folder with the update's data.
        val_size: Share of the training data kept for validation, in [0, 1).
        seed: Seed of the split.

    Raises:
        InvalidShareError: `val_size` is outside [0, 1).
    """

    ragged_fields: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()

    def __init__(self, data_path: str | Path, val_size: float = 0.0, seed: int = 0) -> None:
        self._data_path = Path(data_path)
        self._val_size = share("val_size", val_size)
        self._seed = seed
        self._train_data: Dataset | None = None
        self._val_data: Dataset | None = None
        self._test_data: Dataset | None = None

    def prepare_data(self) -> None:  # noqa: B027 -- optional
        """Fetch or unpack files, where needed; called once, before `setup()`."""

    @abstractmethod
    def setup(self) -> None:
        """Set `_train_data`, and `_val_data` and `_test_data` where there are any.

        Where one of these stays None, `prepare` sets a share of the training rows aside for it.
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

    def _split_train_val_data(self, train_data: Dataset) -> tuple[Dataset, Dataset | None]:
        """Split off `val_size` of the data at random by the seed; None where that is no row."""
        train, val = split(train_data, self._val_size, self._seed)
        return train, (val if len(val) else None)


def share(name: str, value: float) -> float:
    """Return `value` if it is a share in [0, 1), else raise `InvalidShareError`."""
    if not 0 <= value < 1:
        raise InvalidShareError(name, value)
    return value


def split(dataset: Dataset, size: float, seed: int) -> tuple[Subset, Subset]:
    """Split a dataset at random into `1 - size` and `size` of it, each in the dataset's order.

    Args:
        dataset: A dataset with a length.
        size: Share of the second part, in [0, 1), rounded to whole rows; the first part keeps at
            least one row.
        seed: Seed of the draw: equal seeds and lengths give equal splits.
    """
    total = len(dataset)  # pyright: ignore[reportArgumentType]
    count = min(round(size * total), max(0, total - 1))
    rows = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    first, second = rows[count:].sort().values, rows[:count].sort().values
    return Subset(dataset, first.tolist()), Subset(dataset, second.tolist())
