"""`Images`: image files in a folder for each class, or listed in a table with their targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.data.modules.image_column import (
    ImageColumn,
    chosen_preprocessing,
    mean_size,
)
from renate_stages.data.modules.label_table import read_label_table
from renate_stages.data.modules.text_values import in_order
from renate_stages.data.rejected import Rejected
from renate_stages.errors import (
    AllRowsRejectedError,
    InvalidModuleSettingError,
    MissingDataFileError,
)
from renate_stages.preprocessing.images import ImagePreprocessing

IGNORED_NAMES = ("thumbs.db", "desktop.ini")  # files that file managers write


class Images(RenateDataModule):
    """Images with a label, several labels or numbers; in params.yaml:

        data:
          module: {name: images, size: 96}

    Without `labels`, each folder in the data's folder is a class, named after it, and all files in it
    and below are its images. With `labels`, a table lists the files.

    The bytes of JPEG and PNG files are stored as they are; images of other formats that Pillow reads
    become PNG, without loss. Files that are damaged, have several frames or more than 8 bits for each
    channel are rejected.

    Args:
        data_path: Folder with the update's data.
        labels: A CSV or Parquet file in it, with a row for each image.
        path: Column with paths relative to the folder.
        target: Column with labels (texts or whole numbers) or numbers; or several columns of
            numbers, such as 0 and 1 for tasks with several labels.
        id: Column that identifies an image for `renate-stages forget`; None: its path.
        source: Column that is stored as the metadata `source`.
        group: Column that is stored as the metadata `group`, for `data.split: grouped`.
        time: Column that is stored as the metadata `time`, for `data.split: newest`.
        weight: Column of the rows' weights in the training loss: 0, or numbers from 1e-20 to 1e20.
        size: See `ImagePreprocessing`, as `channels` and `normalize`.
        channels: 1 or 3.
        normalize: `fit`, `imagenet`, `none` or `{mean: [...], std: [...]}`.
        augment: Random changes of training images; see `Augmentation`.
        val_size: Share of the training data to use for validation, in [0, 1).
        seed: Seed of the split.
        task: Name of the task, which decides whether numbers in a table are labels.

    Raises:
        InvalidModuleSettingError: If a setting is outside its range.
        InvalidAugmentationError: If a random change is unknown, or a value is out of range.
        InvalidShareError: If `val_size` is outside [0, 1).
    """

    def __init__(
        self,
        data_path: str | Path,
        labels: str | None = None,
        path: str = "file",
        target: str | Sequence[str] = "label",
        id: str | None = None,  # the name that params.yaml uses
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
        task: str = "auto",
    ) -> None:
        super().__init__(data_path, val_size, seed)
        self._labels, self._path, self._target, self._task = labels, path, target, task
        if not target:
            raise InvalidModuleSettingError("images", "target", target, "one column, or several")
        self.target_names = () if isinstance(target, str) else tuple(target)
        fields = {"id": id, "source": source, "group": group, "time": time, "weight": weight}
        self._fields = {name: column for name, column in fields.items() if column is not None}
        for name, column in self._fields.items():
            if labels is None:
                expected = "null, because only a table of labels has columns; set labels"
                raise InvalidModuleSettingError("images", name, column, expected)
        self._wanted = ImagePreprocessing(size, channels, normalize, augment)
        self.fits_data = not self._wanted.is_given

    def setup(self) -> None:
        """Find the images, check that each can be decoded, and set the datasets.

        Raises:
            MissingDataFileError: If there are no folders, or the table cannot be read.
            MissingColumnError: If the table lacks a column.
            AllRowsRejectedError: If no image can be used.
            ChangedPreprocessingError: If a setting differs from that of earlier updates.
        """
        self.preprocessing = chosen_preprocessing("images", self.preprocessing, self._wanted)
        self.rejected, self.rows_seen = [], 0
        names, targets, metadata = self._listed() if self._labels else self._in_folders()
        files = [self._data_path / name for name in names]
        images = ImageColumn(files)
        problems = images.problems()
        good = np.array([row for row, each in enumerate(problems) if each is None], dtype=np.int64)
        self.rejected += [
            Rejected(name, None, problem)
            for name, problem in zip(names, problems, strict=True)
            if problem is not None
        ]
        if not len(good):
            raise AllRowsRejectedError("images", self.rejected, self.rows_seen)
        if "id" not in self._fields:
            self.row_names = [names[row] for row in good]
        if targets.dtype == object:
            self.label_order = in_order(targets[good])
        row_bytes = mean_size([files[row].stat().st_size for row in good[:1000]])
        data = ColumnDataset(
            images.of_rows(good, row_bytes),
            targets[good],
            {name: [column[row] for row in good] for name, column in metadata.items()},
        )
        self._train_data, self._val_data = self._split_train_val_data(data)

    def _in_folders(self) -> tuple[list[str], np.ndarray, dict[str, list[Any]]]:
        """Return paths, names of labels and metadata by the folders of classes."""
        top = sorted(path for path in self._data_path.iterdir() if not _is_hidden(path))
        folders = [path for path in top if path.is_dir()]
        if not folders:
            problem = "it has no folders of images"
            cure = "make a folder for each class, or name a table of files in labels"
            raise MissingDataFileError("images", self._data_path, problem, cure)
        self.rejected += [
            Rejected(path.name, None, "it is not in the folder of a class")
            for path in top
            if path.is_file()
        ]
        names, labels = [], []
        for folder in folders:
            found = sorted(_files_below(folder))
            names += [path.relative_to(self._data_path).as_posix() for path in found]
            labels += [folder.name] * len(found)
        self.rows_seen = len(names) + len(self.rejected)
        return names, np.array(labels, dtype=object), {"id": names}

    def _listed(self) -> tuple[list[str], np.ndarray, dict[str, list[Any]]]:
        """Return paths, targets and metadata by the table."""
        assert self._labels is not None
        file = self._data_path / self._labels
        table = read_label_table(
            "images", file, self._path, self._target, self._fields, self.rejected, self._task
        )
        self.rows_seen = len(table.paths) + len(self.rejected)
        inside, lines = [], dict[str, int]()
        for row, name in enumerate(table.paths):
            path, line, reason = PurePosixPath(name), int(table.lines[row]), ""
            if path.is_absolute() or ".." in path.parts:
                reason = f"{self._path} is outside the folder of the data"
            elif lines.setdefault(str(path), line) != line and "id" not in self._fields:
                reason = f"{self._path} is listed before"
            if reason:
                self.rejected.append(Rejected(self._labels, line, reason))
            else:
                inside.append(row)
        names = [table.paths[row] for row in inside]
        metadata = {name: [each[row] for row in inside] for name, each in table.metadata.items()}
        return names, table.targets[inside], {"id": names, **metadata}


def _files_below(folder: Path) -> Iterable[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not any(
            _is_hidden(Path(part)) for part in path.relative_to(folder).parts
        ):
            yield path


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in IGNORED_NAMES
