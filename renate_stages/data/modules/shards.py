"""`Shards`: tar files as WebDataset writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.data.modules.image_column import (
    ImageColumn,
    chosen_preprocessing,
    require_images,
)
from renate_stages.data.modules.sample_members import require_one_type, typed_members, values_of
from renate_stages.data.modules.tar_samples import Sample, indexed
from renate_stages.data.modules.text_input import optional_text
from renate_stages.data.modules.text_members import TextMembers
from renate_stages.data.modules.text_values import weights_in
from renate_stages.data.rejected import Rejected
from renate_stages.errors import (
    AllRowsRejectedError,
    InvalidModuleSettingError,
    MissingDataFileError,
)
from renate_stages.memory.row_weights import WEIGHT
from renate_stages.preprocessing.images import ImagePreprocessing

MODULE = "shards"
IMAGES = "jpg;jpeg;png"
_PLACE = "extensions such as jpg or 'jpg;png' (the first that a sample has), or json:FIELD"


class Shards(RenateDataModule):
    """Samples in tar files, as WebDataset writes them; in params.yaml:

        data:
          module: {name: shards, inputs: "jpg;png", target: cls, size: 96}

    A sample consists of the members of one tar file with the same name up to the first dot. Only the
    headers are read at first, then each member when it is needed, without unpacking. By extension,
    members are images (stored and read as by `Images`), arrays (`npy`, of one dtype and shape), texts
    (`txt`), whole numbers (`cls`) or fields of `json`. What `text` names is stored and read as by
    `Text`; other texts are inputs as their UTF-8 bytes. Samples that lack a member, or have one that
    cannot be used, are rejected.

    Args:
        data_path: Folder with the update's data.
        files: Pattern of the tar files in it, which are read in the order of their names.
        inputs: Extensions of the member with the inputs; or a dict of them by the name of the input.
            None: images (`jpg;jpeg;png`), unless `text` is set.
        text: What has the text, in place of `inputs`: `txt` or `json:FIELD`, or two of them for pairs.
        tokenizer: See `Text`, as `max_length`, `vocab_size`, `min_count` and `lower`; for texts alone.
        max_length: Maximum number of tokens; longer texts are cut off when they are read.
        vocab_size: Maximum number of ids of a vocabulary or trained tokenizer.
        min_count: How often a word must occur in the training rows of an update to get an id.
        lower: Whether a vocabulary or trained tokenizer converts to lower case.
        target: The same for the targets: `cls`, `txt` or `json:FIELD`, a label or numbers; or `npy`.
        id: What identifies an example, such as `json:FIELD`; None: the sample's name.
        source: What is stored as the metadata `source`; `group` and `time` too.
        group: What is stored as the metadata `group`.
        time: What is stored as the metadata `time`.
        weight: What is the rows' weight in the training loss: 0, or a number from 1e-20 to 1e20.
        size: See `ImagePreprocessing`, as `channels` and `normalize`; for images alone.
        channels: 1 or 3.
        normalize: `fit`, `imagenet`, `none` or `{mean: [...], std: [...]}`.
        augment: Random changes of training images; see `Augmentation`.
        val_size: Share of the training data to use for validation, in [0, 1).
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
        files: str = "**/*.tar",
        inputs: str | Mapping[str, str] | None = None,
        target: str = "cls",
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
            places = IMAGES if self._texts is None else self._texts.columns
            inputs = places if isinstance(places, str) else {each: each for each in places}
        self._files, self._target = files, target
        self._is_single = isinstance(inputs, str)
        self._inputs = {"inputs": inputs} if isinstance(inputs, str) else dict(inputs)
        fields = {"id": id, "source": source, "group": group, "time": time, "weight": weight}
        self._fields = {name: each for name, each in fields.items() if each is not None}
        if not self._inputs:
            raise InvalidModuleSettingError(MODULE, "inputs", inputs, _PLACE)
        for name, place in {**self._inputs, "target": target, **self._fields}.items():
            if not isinstance(place, str) or not all(place.split(";")):
                raise InvalidModuleSettingError(MODULE, name, place, _PLACE)
        self._wanted = ImagePreprocessing(size, channels, normalize, augment)

    def setup(self) -> None:
        """Index the tar files, check each member that is used, and set the datasets.

        Raises:
            MissingDataFileError: If there is no tar file, or one is damaged.
            AllRowsRejectedError: If no sample can be used.
            ChangedPreprocessingError: If a setting differs from that of earlier updates.
            TextEncodingError: If texts would get other ids than in earlier updates.
            MissingFileError: If the tokenizer's file does not exist.
            InvalidTokenizerError: If it cannot be used.
        """
        folder, self.rejected = self._data_path, []
        if self._texts is not None:
            self.preprocessing = self._texts.preprocessing(self.preprocessing, folder)
        shards = sorted(folder.glob(self._files))
        if not shards:
            problem, cure = f"no file matches {self._files!r}", "change files, or add tar files"
            raise MissingDataFileError(MODULE, folder, problem, cure)
        samples = indexed(MODULE, shards, folder)
        self.rows_seen = len(samples)
        reasons = _repeated(samples)
        columns = self._columns(shards, samples, reasons)
        values = {
            name: values_of(shards, samples, place, reasons)
            for name, place in {"target": self._target, **self._fields}.items()
        }
        require_one_type(values["target"], reasons, self._target)
        if place := self._fields.get(WEIGHT):
            values[WEIGHT] = weights_in(map(_plain, values[WEIGHT]), place, reasons)
        names = [shard.relative_to(folder).as_posix() for shard in shards]
        self.rejected = [
            Rejected(f"{names[samples[row].shard]}/{samples[row].key}", None, reason)
            for row, reason in sorted(reasons.items())
        ]
        good = np.setdiff1d(np.arange(len(samples)), list(reasons)).astype(np.int64)
        if not len(good):
            raise AllRowsRejectedError(MODULE, self.rejected, len(samples))
        inputs = columns(good)
        if isinstance(inputs, ImageColumn):
            self.preprocessing = chosen_preprocessing(MODULE, self.preprocessing, self._wanted)
        else:
            require_images(MODULE, self._wanted)
        chosen = {name: [_plain(each[row]) for row in good] for name, each in values.items()}
        targets = [values["target"][row] for row in good]
        del chosen["target"]
        keys = [samples[row].key for row in good]
        self.row_names = keys if "id" not in chosen else ()
        metadata = {"id": keys, **chosen}
        data = ColumnDataset(
            inputs,
            targets if isinstance(targets[0], str) else np.stack(targets),
            metadata,
        )
        self._train_data, self._val_data = self._split_train_val_data(data)

    def fingerprint(self) -> str | None:
        """Return the SHA-256 of a given `tokenizer.json`; None without one."""
        return None if self._texts is None else self._texts.fingerprint(self.preprocessing)

    def _columns(
        self, shards: Sequence[Path], samples: Sequence[Sample], reasons: dict[int, str]
    ) -> Callable[[np.ndarray], Any]:
        """Return a function that returns inputs of rows; rows that cannot be used get a reason."""
        if self._texts is not None:
            return TextMembers(shards, samples, self._texts.columns, reasons).column
        members = {
            name: typed_members(shards, samples, place, reasons)
            for name, place in self._inputs.items()
        }
        if self._is_single:
            return members["inputs"].column
        return lambda rows: {name: each.column(rows) for name, each in members.items()}


def _repeated(samples: Sequence[Sample]) -> dict[int, str]:
    """Return the rows whose key an earlier row has, with the reason to reject them."""
    known: set[str] = set()
    reasons = {}
    for row, sample in enumerate(samples):
        if sample.key in known:
            reasons[row] = "an earlier sample has the same name"
        known.add(sample.key)
    return reasons


def _plain(value: Any) -> Any:
    """Return a value as metadata may have it: a single number as a Python number."""
    return value.item() if isinstance(value, np.ndarray) and not value.ndim else value
