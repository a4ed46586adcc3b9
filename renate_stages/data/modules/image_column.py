"""Encoded images as a column that is read when it is needed, shared by data modules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from renate_stages.data.columns import LazyColumn
from renate_stages.errors import ChangedPreprocessingError, InvalidModuleSettingError
from renate_stages.memory import Ragged
from renate_stages.preprocessing import Preprocessing
from renate_stages.preprocessing.encoded_images import UnusableImageError, encoded_image, file_bytes
from renate_stages.preprocessing.images import ImagePreprocessing

THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes and encodes without the interpreter's lock


_NOT_DECODED = -1


class Sources(Protocol):
    """Images by row: paths, bytes of files, or PIL images."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any: ...


class ImageColumn(LazyColumn):
    """Images as a column of the bytes that are stored.

    A file that `problems` has decoded is not decoded again when it is read, unless it has changed.

    Args:
        sources: The images.
        rows: The rows to use, int64 `(n,)`; None: all.
        row_bytes: Bytes of an encoded image, about.
    """

    def __init__(
        self, sources: Sources, rows: np.ndarray | None = None, row_bytes: int = 100_000
    ) -> None:
        self.sources = sources
        self._rows = np.arange(len(sources)) if rows is None else rows
        self.row_bytes = max(1, row_bytes)
        # Checksums of the sources whose bytes are stored unchanged, after they have been decoded.
        self._decoded = np.full(len(sources), _NOT_DECODED, np.int64)

    def of_rows(self, rows: np.ndarray, row_bytes: int | None = None) -> ImageColumn:
        """Return other rows of the same sources, int64 `(n,)`."""
        found = ImageColumn(self.sources, rows, row_bytes or self.row_bytes)
        found._decoded = self._decoded
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> bytes:
        number = int(self._rows[row])
        data, known = file_bytes(self.sources[number]), self._decoded[number]
        if isinstance(data, bytes) and known != _NOT_DECODED and known == crc32(data):
            return data
        encoded = encoded_image(data)
        if encoded is data:
            self._decoded[number] = crc32(encoded)
        return encoded

    def take(self, rows: np.ndarray) -> Ragged:
        """Return rows in the given order, read by several threads."""
        if not len(rows):
            return Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64), "image")
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(self.__getitem__, rows.tolist())
            return Ragged.of([np.frombuffer(each, np.uint8) for each in found], "image")

    def problems(self) -> list[str | None]:
        """Return for each row why it cannot be used, or None; decodes all images."""
        with ThreadPoolExecutor(THREADS) as pool:
            return [*pool.map(self._problem, range(len(self)))]

    def _problem(self, row: int) -> str | None:
        try:
            self[row]
        except UnusableImageError as error:
            return str(error)
        return None


def mean_size(sizes: Sequence[int]) -> int:
    """Return the mean of sizes in bytes, >= 1."""
    return max(1, sum(sizes) // max(1, len(sizes)))


def chosen_preprocessing(
    module: str, parent: Preprocessing | None, wanted: ImagePreprocessing
) -> ImagePreprocessing:
    """Return the parent's preprocessing, or the wanted one in the first update.

    Random changes in training are those of the wanted one, because no example was stored with them.

    Args:
        module: Name of the data module, for messages.
        parent: The parent's preprocessing.
        wanted: A preprocessing with the settings of the module.

    Raises:
        ChangedPreprocessingError: If a setting differs from that of the parent.
    """
    if parent is None:
        return wanted
    if not isinstance(parent, ImagePreprocessing):
        problem = f"the inputs of earlier updates are {parent.kind}"
    elif (difference := wanted.difference_from(parent)) is None:
        parent.augmentation = wanted.augmentation
        return parent
    else:
        problem = f"{difference} as in earlier updates, with which the model was trained"
    cure = "use the earlier setting, or start again from the empty state with all data"
    raise ChangedPreprocessingError(f"data module {module}", problem, cure)


def require_images(module: str, wanted: ImagePreprocessing) -> None:
    """Check that a module whose inputs are not images alone is not to change images at random.

    Raises:
        InvalidModuleSettingError: If it is.
    """
    if wanted.augmentation:
        names = [each["name"] for each in wanted.augmentation.settings]
        expected = "null, because the inputs are not one image each"
        raise InvalidModuleSettingError(module, "augment", names, expected)
