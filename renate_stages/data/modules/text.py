"""`Text`: texts or pairs of texts with labels, from CSV, lines of JSON and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.data.modules.text_files import data_files, rows_of
from renate_stages.data.modules.text_input import TextInput
from renate_stages.data.modules.text_values import (
    UnusableCellError,
    flag_in,
    has_fraction,
    in_order,
    is_number,
    label_in,
    number_in,
    plain,
    short_in,
    text_in,
    time_in,
    weight_in,
)
from renate_stages.data.rejected import Rejected
from renate_stages.errors import TextSettingError, TextTargetError
from renate_stages.memory import Ragged
from renate_stages.memory.ragged import offsets_of
from renate_stages.memory.spec import IGNORED
from renate_stages.preprocessing.stored_text import INPUTS, stored_text

TASKS = ("auto", "classification", "binary", "multilabel", "regression", "custom")
METADATA = {
    "id": plain,
    "source": short_in,
    "group": short_in,
    "time": time_in,
    "weight": weight_in,
}


class Text(RenateDataModule):
    """Reads texts and their labels; `setup()` reads all files of the folder in order of their names.

        data:
          module: {name: text, text: message, target: topic, id: ticket}

    A text is stored as text, in UTF-8, and becomes token ids each time that it is read, so memory and
    holdouts stay usable when words are added; see `TextPreprocessing`. Rows that cannot be used are
    listed in `rejected`. An empty text is usable, a missing one is not.

    Targets are names of labels, also whole numbers ("3"), so that a new label gets a new output.
    Several columns of 0 and 1 are multilabel; with `task="regression"`, targets are float32.

    Args:
        data_path: Folder with `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` (an object on each line)
            and `.parquet` files.
        text: Name of the column with the text, or of two columns with a pair.
        target: Name of the column with the label or number, or of several; None: no row has a label.
        id: Column that identifies examples, to forget them; None: their content does.
        source: Column with the source of each row, at most 32 bytes, for slices and `never_keep`.
        group: Column with what must not be divided between splits, at most 32 bytes; stored as
            metadata `group`, which `data.split_by` may name.
        time: Column with a number, or a date or time of ISO 8601; stored as metadata `time`, a number
            or the seconds since 1970 (UTC).
        weight: Column of the rows' weights in the training loss: 0, or numbers from 1e-20 to 1e20.
        delimiter: What separates the cells of `.csv` files, one character.
        val_size: Share of the rows to use for validation, in [0, 1).
        seed: Seed of that split.
        tokenizer: Path of a `tokenizer.json`, in the folder or from the current one; `bpe`: train one
            on the first update; None: a vocabulary of words.
        max_length: Maximum number of tokens; longer texts are cut off when they are read.
        vocab_size: Maximum number of ids of a vocabulary or trained tokenizer.
        min_count: How often a word must occur in the training rows of an update to get an id.
        lower: Whether a vocabulary or trained tokenizer converts to lower case.
        task: Name of the task. `auto`: classification, or multilabel with several columns.

    Raises:
        TextSettingError: If a setting cannot be used.
        InvalidShareError: If `val_size` is outside [0, 1).
    """

    ragged_fields = (INPUTS,)

    def __init__(
        self,
        data_path: str | Path,
        text: str | Sequence[str] = "text",
        target: str | Sequence[str] | None = "label",
        id: str | None = None,
        source: str | None = None,
        group: str | None = None,
        time: str | None = None,
        weight: str | None = None,
        delimiter: str = ",",
        val_size: float = 0.0,
        seed: int = 0,
        tokenizer: str | None = None,
        max_length: int = 512,
        vocab_size: int = 20_000,
        min_count: int = 2,
        lower: bool = True,
        task: str = "auto",
    ) -> None:
        super().__init__(data_path, val_size, seed)
        self._texts = TextInput(text, tokenizer, max_length, vocab_size, min_count, lower)
        self.fits_data = self._texts.is_fitted_on_data
        self._one_target = isinstance(target, str)
        listed: tuple[Any, ...] = tuple(target) if isinstance(target, list | tuple) else (target,)
        listed = () if target is None else listed
        if target is not None and not (listed and all(isinstance(n, str) and n for n in listed)):
            raise TextSettingError(
                "target", target, "the name of a column, a list of names, or null"
            )
        metadata = {"id": id, "source": source, "group": group, "time": time, "weight": weight}
        self._metadata = {name: column for name, column in metadata.items() if column is not None}
        for name, column in self._metadata.items():
            if not isinstance(column, str) or not column:
                raise TextSettingError(name, column, "the name of a column, or null")
        if len({*listed}) < len(listed) or {*listed} & {*self._texts.columns}:
            raise TextSettingError(
                "target", target, "columns that are neither named twice nor in text"
            )
        if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
            raise TextSettingError("delimiter", delimiter, "one character, no quote or line end")
        self._delimiter, self._targets = delimiter, listed
        self._kind = self._kind_of(task)
        self.target_names = () if self._one_target else tuple(self._targets)

    def setup(self) -> None:
        """Read all files.

        Raises:
            TextFilesError: If the folder has no file with texts, or files of another kind.
            TextColumnError: If a file does not have a column.
            MalformedFileError: If a file cannot be read to its end.
            TextTargetError: If targets have a fraction and the task is `auto`.
            TextEncodingError: If texts would get other ids than in earlier updates.
            MissingFileError: If the tokenizer's file does not exist.
            InvalidTokenizerError: If it cannot be used.
            MissingExtraError: If it needs the package `tokenizers`, which is not installed.
        """
        path, self.rejected, self.rows_seen = self._texts.tokenizer_path(self._data_path), [], 0
        self.preprocessing = self._texts.preprocessing(self.preprocessing, self._data_path)
        self._time_is = ""
        rows = _Rows([*self._metadata])
        columns = dict.fromkeys(self._texts.columns, "text")
        columns |= dict.fromkeys(self._targets, "target")
        for name, column in self._metadata.items():
            columns.setdefault(column, name)
        places = {column: place for place, column in enumerate(columns)}
        for file in data_files(self._data_path, [path] if path else []):
            name = file.relative_to(self._data_path).as_posix()

            def reject(row: int, reason: str, name: str = name) -> None:
                self.rows_seen += 1
                self.rejected.append(Rejected(name, row, reason))

            for number, cells in rows_of(file, columns, reject, self._delimiter):
                try:
                    row = self._row({column: cells[at] for column, at in places.items()})
                except UnusableCellError as error:
                    reject(number, str(error))
                    continue
                if self._kind == "auto" and has_fraction(row[1]):
                    raise TextTargetError(f"{file}, row {number}", self._targets[0], row[1])
                self.rows_seen += 1
                rows.add(*row)
        data = ColumnDataset(rows.texts(), self._array(rows.targets), rows.metadata)
        if self._kind in ("auto", "names"):
            self.label_order = in_order(rows.targets)
        self._train_data, self._val_data = self._split_train_val_data(data)

    def fingerprint(self) -> str | None:
        """Return the SHA-256 of a given `tokenizer.json`; None without one."""
        return self._texts.fingerprint(self.preprocessing)

    def _kind_of(self, task: str) -> str:
        """Return what targets are: `auto`, `names`, `flag`, `flags`, `number`, `numbers` or `none`."""
        own = isinstance(task, str) and ":" in task  # a task of the user
        if task not in TASKS and not own:
            raise TextSettingError(
                "task", task, f"one of {', '.join(TASKS)}, or a task of your own"
            )
        if not self._targets:
            return "none"
        kinds = {"classification": "names", "binary": "flag", "multilabel": "flags"}
        kinds |= {"regression": "number" if self._one_target else "numbers"}
        kind = kinds.get(task, "auto" if self._one_target else "flags")
        if kind in ("names", "flag") and not self._one_target:
            raise TextSettingError("target", list(self._targets), f"one column for task {task}")
        return kind

    def _row(self, cells: dict[str, Any]) -> tuple[bytes, Any, list[Any]]:
        """Return the text, target and metadata of a row; raise `UnusableCellError` if it cannot be used."""
        text = stored_text([text_in(cells[name], name) for name in self._texts.columns])
        read: Callable[[Any, str], Any] = label_in
        if self._kind in ("flags", "number", "numbers"):
            read = flag_in if self._kind == "flags" else number_in
        target: Any = [read(cells[name], name) for name in self._targets]
        if self._kind in ("auto", "names", "flag", "number"):
            target = target[0]
        metadata = [
            METADATA[name](cells[column], column) for name, column in self._metadata.items()
        ]
        if (column := self._metadata.get("time")) is not None:
            now = "a number" if is_number(cells[column]) else "a date"
            self._time_is = self._time_is or now
            if now != self._time_is:
                reason = f"{column} is {now}, in earlier rows {self._time_is}"
                raise UnusableCellError(reason)
        return text.encode(), target, metadata

    def _array(self, targets: list[Any]) -> Any:
        """Return targets as a column."""
        if self._kind == "none":
            return np.full(len(targets), IGNORED, np.int64)
        if self._kind in ("number", "numbers", "flags"):
            shape = (len(targets),) if self._kind == "number" else (-1, len(self._targets))
            return np.array(targets, np.int64 if self._kind == "flags" else np.float32).reshape(
                shape
            )
        if self._kind == "flag" and {*targets} <= {"0", "1"}:
            return np.array(targets).astype(np.int64)
        return targets


class _Rows:
    """Rows that were read, in the form in which they are stored."""

    def __init__(self, metadata: Sequence[str]) -> None:
        self._bytes = bytearray()
        self._lengths: list[int] = []
        self._same: dict[Any, Any] = {}  # equal names are one object, because there may be millions
        self.targets: list[Any] = []
        self.metadata: dict[str, list[Any]] = {name: [] for name in metadata}

    def add(self, text: bytes, target: Any, metadata: list[Any]) -> None:
        """Add a row."""
        self._bytes += text
        self._lengths.append(len(text))
        self.targets.append(self._one(target))
        for name, value in zip(self.metadata, metadata, strict=True):
            self.metadata[name].append(value if name == "id" else self._one(value))

    def texts(self) -> Ragged:
        """Return the texts as a column."""
        values = np.frombuffer(self._bytes, np.uint8)
        return Ragged(values, offsets_of(np.array(self._lengths, np.int64)))

    def _one(self, value: Any) -> Any:
        return self._same.setdefault(value, value) if isinstance(value, str) else value
