"""`renate.data.data_module`: the base class of data modules, and CSV files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from renate_stages import data
from renate_stages.errors import DataModuleError, MissingFileError


class RenateDataModule(data.RenateDataModule):
    """The base class of data modules, with the constructor of Renate.

    Args:
        data_path: Folder with the update's data.
        src_bucket: Name of an S3 bucket, for your own `prepare_data`.
        src_object_name: Folder in the bucket, for your own `prepare_data`.
        val_size: Share of the training data that `_split_train_val_data` uses for validation.
        seed: Seed of the split.

    Raises:
        InvalidShareError: If `val_size` is outside [0, 1).
    """

    def __init__(
        self,
        data_path: str | Path,
        src_bucket: str | Path | None = None,
        src_object_name: str | Path | None = None,
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, val_size, seed)
        self._data_path = data_path  # pyright: ignore[reportAttributeAccessIssue] -- a text in Renate
        self._src_bucket = src_bucket
        self._src_object_name = src_object_name
        self._train_collate_fn: Callable | None = None
        self._val_collate_fn: Callable | None = None
        self._test_collate_fn: Callable | None = None

    def train_collate_fn(self) -> Callable | None:
        """Return the collate function of the training data; it may only pad batches."""
        return self._train_collate_fn

    def val_collate_fn(self) -> Callable | None:
        """Return the collate function of the validation data; it may only pad batches."""
        return self._val_collate_fn

    def test_collate_fn(self) -> Callable | None:
        """Return the collate function of the test data; it may only pad batches."""
        return self._test_collate_fn

    def _refuse_bucket(self) -> None:
        """Refuse a bucket, because the pipeline tracks the data that an update reads.

        Raises:
            DataModuleError: If `src_bucket` is set.
        """
        if self._src_bucket is not None:
            place = f"s3://{self._src_bucket}/{self._src_object_name or ''}"
            raise DataModuleError(
                f"{type(self).__name__} has src_bucket {self._src_bucket!r}, but does not download",
                f"leave it out, and pass data_path='{place}' to run_training_job, or copy the files "
                "to data/incoming",
            )


class CSVDataModule(RenateDataModule):
    """Rows of CSV files, with one column of targets.

    Args:
        data_path: Folder with the files.
        train_filename: The file with training data.
        test_filename: The file with test data.
        src_bucket: Must be None; pass a URL as `data_path` to `run_training_job` instead.
        src_object_name: Not used.
        target_name: Name of the column with targets.
        val_size: Share of the training data to use for validation.
        seed: Seed of the split.
    """

    def __init__(
        self,
        data_path: str | Path,
        train_filename: str | Path = "train.csv",
        test_filename: str | Path = "test.csv",
        src_bucket: str | Path | None = None,
        src_object_name: str | Path | None = None,
        target_name: str = "y",
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, src_bucket, src_object_name, val_size, seed)
        self._train_filename = train_filename
        self._test_filename = test_filename
        self._target_name = target_name

    def prepare_data(self) -> None:
        """Refuse `src_bucket`."""
        self._refuse_bucket()

    def setup(self) -> None:
        """Read the files; the names of the columns become `feature_names`."""
        train = self._read(self._train_filename)
        self._train_data, self._val_data = self._split_train_val_data(train)
        self._test_data = self._read(self._test_filename)

    def _read(self, name: str | Path) -> TensorDataset:
        import pandas as pd

        path = Path(self._data_path) / name
        if not path.is_file():
            cure = "write this file, or set train_filename and test_filename"
            raise MissingFileError(path, "CSVDataModule reads it", cure)
        table = pd.read_csv(path)
        if self._target_name not in table.columns:
            raise DataModuleError(
                f"{path} has no column {self._target_name!r} (it has: {', '.join(table.columns)})",
                "set target_name to the column with the targets",
            )
        targets = torch.tensor(table.pop(self._target_name).to_numpy())
        self.feature_names = tuple(map(str, table.columns))
        return TensorDataset(torch.tensor(table.to_numpy(dtype="float32")), targets)
