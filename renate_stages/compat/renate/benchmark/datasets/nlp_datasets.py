"""`renate.benchmark.datasets.nlp_datasets`: texts of Hugging Face datasets, from local files."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.compat.renate import defaults
from renate_stages.compat.renate.data.data_module import RenateDataModule
from renate_stages.compat.renate.missing import refuse
from renate_stages.errors import DataModuleError, MissingFileError, MissingPackageError

FIELDS = ("input_ids", "attention_mask")

__getattr__ = refuse(
    __name__, {"MultiTextDataModule": "use HuggingFaceTextDataModule for each of its datasets"}
)


class HuggingFaceTextDataModule(RenateDataModule):
    """Texts of a dataset that was saved with `save_to_disk`, as token ids.

    Nothing is downloaded. Save the dataset once:

        datasets.load_dataset("ag_news").save_to_disk("data/incoming/ag_news")

    It needs the splits `train` and `test`. A split `validation` is used if there is one; otherwise
    `val_size` of the training data.

    Args:
        data_path: Folder with the saved dataset, or the folder that contains it.
        tokenizer: Maps a text to a dict with `input_ids` and `attention_mask`.
        dataset_name: Name of the saved dataset's folder.
        input_column: Column with the text.
        target_column: Column with the label.
        tokenizer_kwargs: Keyword arguments of the tokenizer; None: padding to 128 tokens, and
            truncation. With another padding, all texts must get the same length.
        val_size: Share of the training data to use for validation.
        seed: Seed of the split.
    """

    def __init__(
        self,
        data_path: str | Path,
        tokenizer: Callable[..., Any],
        dataset_name: str = "ag_news",
        input_column: str = "text",
        target_column: str = "label",
        tokenizer_kwargs: dict[str, Any] | None = None,
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, val_size=val_size, seed=seed)
        self._tokenizer = tokenizer
        self._dataset_name = dataset_name
        self._columns = input_column, target_column
        self._tokenizer_kwargs = tokenizer_kwargs or defaults.TOKENIZER_KWARGS

    def setup(self) -> None:
        """Open the saved dataset.

        Raises:
            MissingPackageError: If the package datasets is not installed.
            MissingFileError: If there is no saved dataset.
            DataModuleError: If a split or a column is missing.
        """
        splits = self._open()
        for split in ("train", "test"):
            if split not in splits:
                problem = f"the dataset {self._dataset_name} has no split {split!r}"
                raise DataModuleError(problem, "save a dataset with the splits train and test")
        train = self._texts(splits["train"])
        if "validation" in splits:
            self._train_data, self._val_data = train, self._texts(splits["validation"])
        else:
            self._train_data, self._val_data = self._split_train_val_data(train)
        self._test_data = self._texts(splits["test"])

    def _open(self) -> Any:
        try:
            library = import_module("datasets")
        except ImportError as error:
            raise MissingPackageError("HuggingFaceTextDataModule", "datasets") from error
        folder = Path(self._data_path) / self._dataset_name.replace("/", "_")
        folder = folder if folder.is_dir() else Path(self._data_path)
        if not (folder / "dataset_dict.json").is_file():
            name = self._dataset_name
            saved = f"{self._data_path}/{name.replace('/', '_')}"
            cure = f"run `datasets.load_dataset({name!r}).save_to_disk({saved!r})` once"
            what = "HuggingFaceTextDataModule reads a dataset that save_to_disk wrote"
            raise MissingFileError(folder / "dataset_dict.json", what, cure)
        return library.load_from_disk(str(folder))

    def _texts(self, rows: Any) -> Dataset:
        for column in self._columns:
            if column not in rows.column_names:
                known = ", ".join(rows.column_names)
                problem = f"the dataset {self._dataset_name} has no column {column!r} ({known})"
                raise DataModuleError(problem, "set input_column and target_column")
        return _Texts(rows, self._columns, self._tokenizer, self._tokenizer_kwargs)


class _Texts(Dataset):
    """Tokenizes texts as they are read."""

    def __init__(
        self, rows: Any, columns: tuple[str, str], tokenizer: Callable, arguments: dict[str, Any]
    ) -> None:
        self.rows, self.tokenizer, self.arguments = rows, tokenizer, arguments
        self.text, self.label = columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        row = self.rows[index]
        tokens = self.tokenizer(row[self.text], **self.arguments)
        inputs = {name: torch.as_tensor(tokens[name]) for name in FIELDS}
        return inputs, torch.as_tensor(row[self.label])
