"""Text columns of a table: stored as UTF-8, read as the words of a vocabulary for each column."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, so pyright does not know them.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from renate_stages.memory import ExampleStore, Ragged, Tree
from renate_stages.preprocessing.stored_text import ragged_of, stored_text, texts_of
from renate_stages.preprocessing.table_texts import as_texts, combined
from renate_stages.preprocessing.table_values import Bad
from renate_stages.preprocessing.text import TextPreprocessing
from renate_stages.preprocessing.text_settings import WORDS, TextSettings

PART = "text"  # of the inputs: a tuple with an entry for each column


class TextColumns:
    """The text columns of a table, each with a vocabulary of its own.

    Args:
        names: Names of the columns.
        settings: How their texts become token ids; its columns do not count.
    """

    def __init__(self, names: Sequence[str] = (), settings: TextSettings | None = None) -> None:
        given = settings or TextSettings()
        self.columns = [TextPreprocessing(given.of_column(name)) for name in names]

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(each.settings.columns[0] for each in self.columns)

    def change(self, settings: TextSettings) -> None:
        """Use other settings from this update on.

        Raises:
            TextEncodingError: If texts would get other ids than in earlier updates.
        """
        self.columns = [
            each.with_settings(settings.of_column(name))
            for each, name in zip(self.columns, self.names, strict=True)
        ]

    def stored(self, table: pa.Table) -> tuple[dict[str, tuple[Ragged, ...]], Bad]:
        """Return the texts of an Arrow table, and the reason for each row that cannot be read.

        A missing value becomes an empty text.

        Returns:
            "text": for each column a `Ragged` of UTF-8 bytes; an empty dict without such columns.
        """
        if not self.columns:
            return {}, {}
        found, bad = [], {}
        for name in self.names:
            texts, wrong = _stored(table[name], name)
            found.append(texts)
            bad = {**wrong, **bad}
        return {PART: tuple(found)}, bad

    def fit(self, train: ExampleStore) -> dict[str, dict[str, float]]:
        """Add the frequent words of training rows.

        Returns:
            Figures by column: new words, share of words that were unknown before, and share of rows
            without a text, as `missing`.
        """
        figures: dict[str, dict[str, float]] = {}
        for place, column in enumerate(self.columns):
            path = f"inputs.{PART}.{place}"
            for what, values in column.fit(train, path).items():
                figures.setdefault(what, {}).update(values)
            if empty := _empty_rows(train, path):
                figures.setdefault("missing", {})[self.names[place]] = empty / len(train)
        return figures

    def transform(self, stored: Sequence[Tree]) -> tuple[Tree, ...]:
        """Return `{"input_ids", "attention_mask"}`, int64 `(B, T)`, for each column.

        Args:
            stored: For each column UTF-8 bytes, uint8 `(B, L)`, padded with zeros at the end.
        """
        pairs = zip(self.columns, stored, strict=True)
        return tuple(column.transform(texts) for column, texts in pairs)

    def sizes(self) -> dict[str, Any]:
        """Return `vocab_sizes`, the number of ids of each column; empty without such columns."""
        sizes = [each.sizes()["vocab_size"] for each in self.columns]
        return {"vocab_sizes": sizes} if sizes else {}

    def content(self) -> list[dict[str, Any]]:
        """Return settings and words of each column as JSON values."""
        return [each.content() for each in self.columns]

    @classmethod
    def from_content(cls, content: Sequence[Mapping[str, Any]], folder: Path) -> Self:
        """Return the columns that `content` describes; raises as `Preprocessing.from_content` does."""
        found = cls()
        found.columns = [TextPreprocessing.from_content(each, folder) for each in content]
        for each in found.columns:
            if each.settings.pair or each.settings.method != WORDS:
                raise ValueError("a text column of a table has words, and one name")
        return found


def _stored(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[Ragged, Bad]:
    """Return a column as stored texts, and the reason for each row that is not UTF-8."""
    texts, bad = as_texts(combined(column)), {}
    try:
        texts.validate(full=True)  # files may have other bytes in columns of texts
    except pa.ArrowInvalid:
        cells = texts.cast(pa.binary()).to_pylist()
        bad = {row: f"{name} is not UTF-8" for row, cell in enumerate(cells) if not _is_utf8(cell)}
        kept = [
            "" if row in bad or cell is None else cell.decode() for row, cell in enumerate(cells)
        ]
        texts = pa.array(kept, pa.string())
    texts = pc.fill_null(texts, "")
    if pc.all(pc.string_is_ascii(texts), min_count=0).as_py():
        texts = pc.replace_substring(texts, "\0", "")
        return _ragged(texts), bad
    return ragged_of(stored_text([text]).encode() for text in texts.to_pylist()), bad


def _ragged(texts: pa.Array) -> Ragged:
    """Return texts without null as a column of their bytes."""
    _, offsets, values = texts.cast(pa.large_string()).buffers()
    first = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if values is None or not len(texts):
        return Ragged(np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64))
    return Ragged(np.frombuffer(values, np.uint8)[first[0] : first[-1]], first - first[0])


def _empty_rows(store: ExampleStore, path: str) -> int:
    """Return the number of rows whose text is empty."""
    return sum(not text for text in texts_of(store, path))


def _is_utf8(cell: bytes | None) -> bool:
    try:
        return cell is None or cell.decode() is not None
    except UnicodeDecodeError:
        return False
