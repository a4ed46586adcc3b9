"""Errors of the data module for texts and of its preprocessing."""

from __future__ import annotations

from collections.abc import Iterable

from renate_stages.errors.base import RenateStagesError, did_you_mean

LISTED = 8  # maximum number of names in a message


class TextSettingError(RenateStagesError):
    """A setting for texts of a data module cannot be used."""

    def __init__(self, name: str, found: object, expected: str) -> None:
        super().__init__(
            f"data.module, {name}: found {found!r:.200}, expected {expected}.\n"
            f"To fix this: correct {name} in data.module of params.yaml."
        )


class TextFilesError(RenateStagesError):
    """The folder of new data has no file with texts, or other files whose data would be missed."""

    def __init__(self, folder: object, problem: str, cure: str) -> None:
        super().__init__(
            f"{folder}: {problem}; expected CSV (.csv, .tsv), lines of JSON (.jsonl, .ndjson, .json) "
            f"or Parquet (.parquet).\nTo fix this: {cure}."
        )


class TextColumnError(RenateStagesError):
    """A file of texts does not have a column that the settings name, or one of another type."""

    def __init__(self, file: object, column: str, setting: str, known: Iterable[str]) -> None:
        known = list(known)
        cure = (
            f"if the column was renamed, set {setting} in data.module of params.yaml to its new name; "
            "otherwise correct the file"
        )
        if len(known) == 1 and (found := [each for each in ";\t|" if each in known[0]]):
            cure = f"set delimiter: {found[0]!r} in data.module of params.yaml, as the file has it"
        shown = ", ".join(map(repr, known[:LISTED])) + (", …" if len(known) > LISTED else "")
        super().__init__(
            f"{file} has no column {column!r}{did_you_mean(column, known)} (it has: "
            f"{shown or 'none'}); {setting} names it.\n"
            f"To fix this: {cure}."
        )


class NoWordsError(RenateStagesError):
    """The training texts of a first update have no words to tell them apart."""

    def __init__(self, columns: Iterable[str], min_count: int) -> None:
        super().__init__(
            f"data.module: in {' and '.join(columns)}, no word occurs at least {min_count} times in the "
            "training rows of the first update, so the model would get the same for every text.\n"
            "To fix this: name the column with texts in data.module, or lower its min_count."
        )


class TextTargetError(RenateStagesError):
    """A target is a number with a fraction, which may be a label or a value to predict."""

    def __init__(self, place: str, column: str, value: object) -> None:
        super().__init__(
            f"{place}: column {column!r} has the target {value!r:.80}, which may be the name of a "
            "label or a number to predict.\n"
            "To fix this: set task in params.yaml to regression, or to classification if it is a label."
        )


class TextRowError(RenateStagesError):
    """A row that a deployed model is given has no text that it can read."""

    def __init__(self, row: int | None, reason: str, expected: str) -> None:
        place = "the rows" if row is None else f"row {row}"
        super().__init__(f"{place}: {reason}; expected {expected}.\nTo fix this: pass such rows.")


class TextEncodingError(RenateStagesError):
    """Settings that texts are encoded with differ from those of earlier updates."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"data.module: {problem}. The embeddings of the parent's model would be misread.\n"
            "To fix this: restore the old setting, or start again from the empty state with all data."
        )


class InvalidTokenizerError(RenateStagesError):
    """A `tokenizer.json` cannot be used."""

    def __init__(self, path: object, problem: str, cure: str) -> None:
        super().__init__(f"{path} cannot be used as a tokenizer: {problem}.\nTo fix this: {cure}.")
