"""`Arrays`: `.npy`, `.npz` and safetensors files as columns of examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.errors import InvalidModuleSettingError, MissingDataFileError, did_you_mean

_FORM = "a file's name, or FILE:NAME for an array in an .npz or .safetensors file"


class Arrays(RenateDataModule):
    """Arrays whose first dimension is the row; in params.yaml:

        data:
          module: {name: arrays, inputs: inputs.npy, targets: targets.npy}

    An array in an `.npz` or safetensors file is named after a colon, such as `data.npz:images`. Files
    `.npy` and safetensors are mapped into memory rather than read. Nothing in a file is executed:
    arrays of objects are refused.

    Args:
        data_path: Folder with the update's data.
        inputs: An array, or a dict of arrays by name. Numbers of any dtype and shape `(rows, ...)`.
        targets: The same; or an array of texts `(rows,)`, the names of labels.
        metadata: Arrays `(rows,)` of numbers or texts by the name of the field, such as `id`.
        val_size: Share of the training data to use for validation, in [0, 1).
        seed: Seed of the split.

    Raises:
        InvalidModuleSettingError: If a setting is no name of a file, or no dict of names.
        InvalidShareError: If `val_size` is outside [0, 1).
    """

    def __init__(
        self,
        data_path: str | Path,
        inputs: str | Mapping[str, str] = "inputs.npy",
        targets: str | Mapping[str, str] = "targets.npy",
        metadata: Mapping[str, str] | None = None,
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, val_size, seed)
        self._inputs, self._targets, self._metadata = inputs, targets, metadata or {}
        for name, found in (("inputs", inputs), ("targets", targets)):
            if not isinstance(found, str | Mapping) or not found:
                raise InvalidModuleSettingError(
                    "arrays", name, found, f"{_FORM}; or a dict of them"
                )
        if not isinstance(self._metadata, Mapping):
            raise InvalidModuleSettingError("arrays", "metadata", metadata, f"a dict: {_FORM}")

    def setup(self) -> None:
        """Open the arrays and set the datasets.

        Raises:
            MissingDataFileError: If a file or an array in it does not exist, or cannot be read
                without executing code.
            ColumnLengthError: If arrays differ in length.
        """
        metadata = {name: self._texts(self._array(each)) for name, each in self._metadata.items()}
        targets = self._tree(self._targets)
        if not isinstance(targets, dict):
            targets = self._texts(targets)
        data = ColumnDataset(self._tree(self._inputs), targets, metadata)
        self.rows_seen = len(data)
        self._train_data, self._val_data = self._split_train_val_data(data)

    def _tree(self, names: str | Mapping[str, str]) -> Any:
        if isinstance(names, str):
            return self._array(names)
        return {name: self._array(each) for name, each in names.items()}

    @staticmethod
    def _texts(array: Any) -> Any:
        is_of_texts = isinstance(array, np.ndarray) and array.dtype.kind == "U"
        return array.tolist() if is_of_texts else array

    def _array(self, place: str) -> Any:
        """Return the array with a name, mapped into memory where its file allows that."""
        if not isinstance(place, str):
            raise InvalidModuleSettingError("arrays", "name of an array", place, _FORM)
        name, _, key = place.partition(":")
        file = self._data_path / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            problem = "it is outside the folder of the data"
            raise MissingDataFileError("arrays", name, problem, "move it to data/incoming")
        if not file.is_file():
            known = (path.name for path in sorted(self._data_path.iterdir()))
            problem = f"the file does not exist{did_you_mean(name, known)}"
            raise MissingDataFileError("arrays", name, problem, "add it to data/incoming")
        read = _READERS.get(file.suffix.lower())
        if read is None or bool(key) == (file.suffix.lower() == ".npy"):
            raise InvalidModuleSettingError("arrays", "name of an array", place, _FORM)
        try:
            found = read(file, key)
        except KeyError as error:
            problem = f"it has no array '{key}'{did_you_mean(key, error.args[0])}"
            raise MissingDataFileError("arrays", name, problem, "change the name") from error
        except Exception as error:
            problem = f"it cannot be read: {str(error).splitlines()[0]}"
            cure = "save arrays of numbers or texts, not of objects; or copy the file again"
            raise MissingDataFileError("arrays", name, problem, cure) from error
        if found.ndim == 0:
            problem = f"{key or 'the array'} has no rows, but a single value"
            raise MissingDataFileError("arrays", name, problem, "save an array (rows, ...)")
        return found


def _npy(file: Path, _: str) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _npz(file: Path, key: str) -> np.ndarray:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        if key not in arrays:
            raise KeyError(arrays.files)
        return arrays[key]


def _safetensors(file: Path, key: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        if key not in (known := list(tensors.keys())):
            raise KeyError(known)
        found = tensors.get_tensor(key)
    return found.float() if found.dtype == torch.bfloat16 else found


_READERS = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
