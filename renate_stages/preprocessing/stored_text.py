"""The stored form of texts: UTF-8 bytes in a column of rows of different lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from renate_stages.errors import TextRowError
from renate_stages.memory import ExampleStore, Ragged
from renate_stages.memory.ragged import offsets_of
from renate_stages.preprocessing.words import SEPARATOR, clean_text

INPUTS = "inputs"  # path of the texts in a store
_ROWS = 4096  # texts to read at once


def stored_text(texts: Sequence[str]) -> str:
    """Return one or two texts as they are stored."""
    pair = len(texts) > 1
    return SEPARATOR.join(clean_text(text, pair=pair) for text in texts)


def problem_of(*texts: str) -> str | None:
    """Return why texts cannot be stored; None if they can."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return "the text has half of a character (a lone surrogate)"
    return None


def ragged_of(texts: Iterator[bytes]) -> Ragged:
    """Return encoded texts as a column, `Ragged` uint8."""
    values, lengths = bytearray(), []
    for text in texts:
        values += text
        lengths.append(len(text))
    return Ragged(np.frombuffer(bytes(values), np.uint8), offsets_of(np.array(lengths, np.int64)))


def texts_of(store: ExampleStore, path: str = INPUTS) -> Iterator[str]:
    """Yield the texts of a store at a path, which are read in blocks of rows."""
    for start in range(0, len(store), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(store)))
        for row in store.columns(rows, [path])[path]:
            yield bytes(row).decode()


def given_texts(rows: Any, columns: Sequence[str]) -> Iterator[str]:
    """Yield the stored form of rows that a deployed model is given.

    Args:
        rows: Texts, or pairs of texts, or a table of pandas or Arrow; see `TextPreprocessing.encode`.
        columns: Names of the columns with the text; two: rows are pairs.

    Raises:
        TextRowError: If a row is not a text that can be stored; it names the row.
    """
    pair = len(columns) == 2
    expected = "pairs of texts" if pair else "texts"
    expected += f", or a DataFrame with the {'columns' if pair else 'column'} {', '.join(columns)}"
    if hasattr(rows, "to_pylist"):  # an Arrow table
        rows = rows.to_pylist()
    if isinstance(rows, str | bytes | Mapping) or not hasattr(rows, "__iter__"):
        raise TextRowError(None, f"found one {type(rows).__name__}", f"a list of {expected}")
    if hasattr(rows, "columns"):
        if missing := [name for name in columns if name not in rows.columns]:
            raise TextRowError(None, f"the table has no column {missing[0]!r}", expected)
        rows = zip(*(rows[name].tolist() for name in columns), strict=True)
        rows = rows if pair else (text for (text,) in rows)
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            texts = tuple(row.get(name) for name in columns)
        else:
            texts = tuple(row) if pair and isinstance(row, list | tuple | np.ndarray) else (row,)
        found = [each for each in texts if isinstance(each, str)]
        if not len(found) == len(texts) == len(columns):
            kinds = ", ".join(type(each).__name__ for each in texts)
            raise TextRowError(number, f"found {kinds or 'nothing'}", expected)
        if problem := problem_of(*found):
            raise TextRowError(number, problem, expected)
        yield stored_text(found)


def padded_ids(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids, padded with 0 at the end, and 1 for each token, int64 `(rows, T)`, T >= 1."""
    ids = np.zeros((len(rows), max(1, *map(len, rows), 1)), np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask
