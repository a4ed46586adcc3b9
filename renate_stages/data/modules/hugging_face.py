"""`HuggingFace`: a dataset of the package `datasets`, from a folder or from the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.data.modules.arrow_column import input_column, is_text, metadata_values
from renate_stages.data.modules.image_column import (
    ImageColumn,
    chosen_preprocessing,
    require_images,
)
from renate_stages.data.modules.text_input import optional_text
from renate_stages.data.modules.text_values import weights_in
from renate_stages.data.rejected import Rejected
from renate_stages.errors import (
    AllRowsRejectedError,
    InvalidModuleSettingError,
    MissingColumnError,
    MissingDataFileError,
    MissingExtraError,
)
from renate_stages.memory.row_weights import WEIGHT
from renate_stages.preprocessing.images import ImagePreprocessing
from renate_stages.preprocessing.stored_text import ragged_of, stored_text

MODULE = "hugging-face"
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_KINDS = "numbers, texts, images, lists of numbers, or arrays"


class HuggingFace(RenateDataModule):
    """A dataset that `save_to_disk` has written, or one of the hub; in params.yaml:

        data:
          module: {name: hugging-face, inputs: image, target: label, size: 96}

    Needs `pip install "renate-stages[datasets]"`. If the dataset has splits, `train`, `validation`
    (or `val`) and `test` are used as they are. Images are stored and read as by `Images`, and the
    column `text` as by `Text`; other texts are UTF-8 bytes. The names of a `ClassLabel` become names
    of labels.

    Args:
        data_path: Folder with the update's data: the dataset's folder, or one that contains it.
        hub: Name on the hub, such as `ylecun/mnist`; None: the dataset is in the folder. `prepare`
            downloads it, and does not notice changes there unless you name another revision.
        config: Name of its configuration.
        revision: Commit, tag or branch on the hub; needed with `hub`, so that a result can be
            reproduced.
        inputs: Name of the column of inputs; or a list of columns, or a dict of columns by the name
            of the input, which make dicts. None: `image`, unless `text` is set.
        text: Name of the column with the text, or of two columns with a pair, in place of `inputs`.
        tokenizer: See `Text`, as `max_length`, `vocab_size`, `min_count` and `lower`; for texts alone.
        max_length: Maximum number of tokens; longer texts are cut off when they are read.
        vocab_size: Maximum number of ids of a vocabulary or trained tokenizer.
        min_count: How often a word must occur in the training rows of an update to get an id.
        lower: Whether a vocabulary or trained tokenizer converts to lower case.
        target: Name of the column of targets: a `ClassLabel`, texts, or numbers.
        id: Column that identifies an example, as in `Images`; `source`, `group` and `time` too.
        source: Column that is stored as the metadata `source`.
        group: Column that is stored as the metadata `group`.
        time: Column that is stored as the metadata `time`.
        weight: Column of the rows' weights in the training loss: 0, or numbers from 1e-20 to 1e20.
        size: See `ImagePreprocessing`, as `channels` and `normalize`; for images alone.
        channels: 1 or 3.
        normalize: `fit`, `imagenet`, `none` or `{mean: [...], std: [...]}`.
        augment: Random changes of training images; see `Augmentation`.
        val_size: Share of the training data to use for validation if the dataset has no such split.
        seed: Seed of the split.

    Raises:
        InvalidModuleSettingError: If a setting is outside its range, or both `inputs` and `text` are set.
        TextSettingError: If a setting for texts cannot be used.
        InvalidAugmentationError: If a random change is unknown, or a value is out of range.
        InvalidShareError: If `val_size` is outside [0, 1).
    """

    def __init__(
        self,
        data_path: str | Path,
        hub: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        inputs: str | Sequence[str] | Mapping[str, str] | None = None,
        target: str = "label",
        id: str | None = None,
        source: str | None = None,
        group: str | None = None,
        time: str | None = None,
        weight: str | None = None,
        size: int | Sequence[int] | None = None,
        channels: int = 3,
        normalize: str | Mapping[str, Sequence[float]] = "fit",
        augment: Sequence[str | Mapping[str, Any]] | None = None,
        val_size: float = 0.0,
        seed: int = 0,
        text: str | Sequence[str] | None = None,
        tokenizer: str | None = None,
        max_length: int = 512,
        vocab_size: int = 20_000,
        min_count: int = 2,
        lower: bool = True,
    ) -> None:
        super().__init__(data_path, val_size, seed)
        of_texts = tokenizer, max_length, vocab_size, min_count, lower
        self._texts = optional_text(MODULE, inputs, text, *of_texts)
        self.fits_data = self._texts is not None and self._texts.is_fitted_on_data
        if inputs is None:
            inputs = "image" if self._texts is None else list(self._texts.columns)
        if not inputs:
            raise InvalidModuleSettingError(MODULE, "inputs", inputs, "a column, or several")
        if (hub is None) != (revision is None):
            expected = "a commit or tag, if and only if hub is set"
            raise InvalidModuleSettingError(MODULE, "revision", revision, expected)
        self._hub, self._config, self._revision = hub, config, revision
        if isinstance(inputs, Mapping):
            self._inputs = dict(inputs)
        else:
            self._inputs = {
                each: each for each in ([inputs] if isinstance(inputs, str) else inputs)
            }
        self._is_single = isinstance(inputs, str)
        self._target = target
        fields = {"id": id, "source": source, "group": group, "time": time, "weight": weight}
        self._fields = {name: column for name, column in fields.items() if column is not None}
        self._wanted = ImagePreprocessing(size, channels, normalize, augment)

    def setup(self) -> None:
        """Load the dataset and set the datasets of the splits.

        Raises:
            MissingExtraError: If the package `datasets` is not installed.
            MissingDataFileError: If there is no dataset, or a column's type cannot be used.
            MissingColumnError: If a column is missing.
            AllRowsRejectedError: If no row can be used.
            ChangedPreprocessingError: If a setting differs from that of earlier updates.
            TextEncodingError: If texts would get other ids than in earlier updates.
            MissingFileError: If the tokenizer's file does not exist.
            InvalidTokenizerError: If it cannot be used.
        """
        self.rejected, self.rows_seen = [], 0
        if self._texts is not None:
            self.preprocessing = self._texts.preprocessing(self.preprocessing, self._data_path)
        found: dict[str, Any] = {}
        for name, dataset in self._loaded().items():
            split = SPLITS.get(name)
            if split is None or split in found:
                problem = f"it has the split '{name}'; expected train, validation and test"
                cure = "rename or remove splits before save_to_disk"
                raise MissingDataFileError(MODULE, self._place, problem, cure)
            found[split] = self._columns(name, dataset)
        if "train" not in found:
            problem = "it has no split 'train'"
            raise MissingDataFileError(MODULE, self._place, problem, "save one with train")
        self._train_data, self._val_data = found["train"], found.get("val")
        self._test_data = found.get("test")
        if self._val_data is None:
            self._train_data, self._val_data = self._split_train_val_data(found["train"])

    @property
    def _place(self) -> str:
        return self._hub or str(self._data_path)

    def _loaded(self) -> dict[str, Any]:
        """Return datasets by the name of the split."""
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError(f"data module {MODULE}", "datasets", "datasets") from error
        if self._hub is not None:
            loaded = datasets.load_dataset(self._hub, self._config, revision=self._revision)
        else:
            folder = self._folder()
            try:
                loaded = datasets.load_from_disk(str(folder))
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = f"it cannot be read: {str(error).splitlines()[0]}"
                cure = "write it again with dataset.save_to_disk(...)"
                raise MissingDataFileError(MODULE, folder, problem, cure) from error
        return dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}

    def _folder(self) -> Path:
        """Return the folder of the dataset: the data's folder, or the only one in it."""
        below = sorted(path for path in self._data_path.iterdir() if path.is_dir())
        for folder in (self._data_path, *below):
            if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
                return folder
        problem = "it contains no dataset"
        cure = "write one with dataset.save_to_disk(...), or set hub"
        raise MissingDataFileError(MODULE, self._data_path, problem, cure)

    def _columns(self, split: str, dataset: Any) -> ColumnDataset:
        """Return the rows of a split that can be used."""
        import datasets

        settings = {**{f"inputs {n}": c for n, c in self._inputs.items()}, "target": self._target}
        settings |= self._fields
        for name, column in settings.items():
            if column not in dataset.column_names:
                raise MissingColumnError(MODULE, name, column, split, dataset.column_names)
        images = [name for name in self._inputs.values() if _is_image(dataset.features[name])]
        others = [name for name in dict.fromkeys(settings.values()) if name not in images]
        table = dataset.select_columns(others).with_format("arrow")[:]
        reasons = _missing(table, [*self._inputs.values(), self._target])
        for name in self._inputs.values() if self._texts is not None else ():
            if name in images or not is_text(table.column(name)):
                raise self._unusable(split, name, dataset, "texts")
        if hasattr(dataset.features[self._target], "names"):
            unlabelled = np.asarray(table.column(self._target).fill_null(0).to_numpy()) < 0
            for row in np.flatnonzero(unlabelled).tolist():  # -1: no label
                reasons.setdefault(row, f"{self._target} is missing")
        weights = []
        if weight := self._fields.get(WEIGHT):
            weights = weights_in(table.column(weight).to_pylist(), weight, reasons)
        columns: dict[str, Any] = {}
        for name in images:
            encoded = dataset.select_columns([name]).cast_column(name, datasets.Image(decode=False))
            columns[name] = ImageColumn(_Encoded(encoded, name))
            for row, problem in enumerate(columns[name].problems()):
                if problem is not None:
                    reasons.setdefault(row, problem)
        self.rows_seen += len(dataset)
        rejected = [Rejected(split, row + 1, why) for row, why in sorted(reasons.items())]
        self.rejected += rejected
        good = np.setdiff1d(np.arange(len(dataset)), list(reasons)).astype(np.int64)
        if not len(good):
            raise AllRowsRejectedError(MODULE, rejected, self.rows_seen)
        table = table.take(good)
        if self._is_single and images:
            self.preprocessing = chosen_preprocessing(MODULE, self.preprocessing, self._wanted)
        else:
            require_images(MODULE, self._wanted)
        for name in self._inputs.values():
            if name in images:
                columns[name] = columns[name].of_rows(good)
            elif (column := input_column(table.column(name))) is not None:
                columns[name] = column
            else:
                raise self._unusable(split, name, dataset, _KINDS)
        inputs: Any = {name: columns[column] for name, column in self._inputs.items()}
        if self._texts is not None:
            pairs = zip(*(table.column(name).to_pylist() for name in inputs), strict=True)
            inputs = ragged_of(stored_text(pair).encode() for pair in pairs)
        elif self._is_single:
            inputs = next(iter(inputs.values()))
        targets = self._targets(split, dataset, table)
        metadata = {}
        for name, column in self._fields.items():
            if name == WEIGHT:
                metadata[name] = np.array(weights)[good]
                continue
            metadata[name] = metadata_values(table.column(column))
            if metadata[name] is None:
                raise self._unusable(split, column, dataset, "numbers, texts or times")
        return ColumnDataset(inputs, targets, metadata)

    def fingerprint(self) -> str | None:
        """Return the SHA-256 of a given `tokenizer.json`; None without one."""
        return None if self._texts is None else self._texts.fingerprint(self.preprocessing)

    def _targets(self, split: str, dataset: Any, table: Any) -> Any:
        """Return names of labels, or numbers."""
        column, feature = table.column(self._target), dataset.features[self._target]
        names = getattr(feature, "names", None)
        if names is not None:
            return [names[number] for number in column.to_pylist()]
        if is_text(column):
            return column.to_pylist()
        found = input_column(column)
        if not isinstance(found, np.ndarray):
            raise self._unusable(split, self._target, dataset, "a ClassLabel, texts or numbers")
        return found.astype(np.int64) if found.dtype == bool else found

    def _unusable(self, split: str, name: str, dataset: Any, kinds: str) -> MissingDataFileError:
        problem = f"column '{name}' of {split} is {dataset.features[name]!r:.120}; expected {kinds}"
        return MissingDataFileError(
            MODULE, self._place, problem, "choose another column, or cast it"
        )


class _Encoded:
    """The images of a column, as bytes or paths of files.

    Args:
        dataset: A dataset whose images are not decoded.
        column: Name of the column.
    """

    def __init__(self, dataset: Any, column: str) -> None:
        self._dataset, self._column = dataset, column

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> Any:
        cell = self._dataset[row][self._column] or {}
        return cell.get("bytes") or cell.get("path") or b""


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _missing(table: Any, names: Sequence[str]) -> dict[int, str]:
    """Return the rows that lack one of some columns, with the reason."""
    reasons: dict[int, str] = {}
    for name in names:
        if name in table.column_names and table.column(name).null_count:
            for row in np.flatnonzero(table.column(name).is_null().to_numpy()).tolist():
                reasons.setdefault(row, f"{name} is missing")
    return reasons
