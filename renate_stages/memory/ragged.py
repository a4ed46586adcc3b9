"""Columns of arrays that differ in length, stored as one array of values with row offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_LONG_ROW = 1024  # bytes; longer rows are copied one by one, which needs no index per value


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths, such as token ids, series, or the bytes of encoded images.

        Ragged.of([np.array([5, 3]), np.array([8, 8, 1])])[1]  # array([8, 8, 1])

    Args:
        values: The concatenated rows, `(total, ...)`; any numeric dtype.
        offsets: The start of each row and the end of the last one, int64 `(rows + 1,)`; starts at 0
            and never decreases.
        decoder: Decoder that is applied to a row when an example is read, a name in
            `preprocessing.decoders.DECODERS`; None: rows are not decoded.
    """

    values: np.ndarray
    offsets: np.ndarray
    decoder: str | None = None

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], decoder: str | None = None) -> Ragged:
        """Return rows as a column; needs at least one row, all of one dtype and item shape."""
        offsets = np.cumsum([0] + [len(row) for row in rows], dtype=np.int64)
        return cls(np.concatenate(rows), offsets, decoder)

    @classmethod
    def concatenate(cls, columns: Sequence[Ragged]) -> Ragged:
        """Concatenate columns; needs at least one."""
        lengths = np.concatenate([column.lengths for column in columns])
        values = np.concatenate([column.values for column in columns])
        return cls(values, offsets_of(lengths), columns[0].decoder)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 `(rows,)`."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """Return copies of rows in the given order, int64 `(n,)`."""
        starts, lengths = self.offsets[rows], self.lengths[rows]
        offsets = offsets_of(lengths)
        total = int(offsets[-1])
        row_bytes = self.values.dtype.itemsize * int(np.prod(self.values.shape[1:], dtype=np.int64))
        if total * row_bytes > _LONG_ROW * max(1, len(lengths)):
            values = np.empty((total, *self.values.shape[1:]), self.values.dtype)
            for start, length, to in zip(starts, lengths, offsets, strict=False):
                values[to : to + length] = self.values[start : start + length]
        else:
            where = np.arange(total) + np.repeat(starts - offsets[:-1], lengths)
            values = self.values[where]
        return Ragged(values, offsets, self.decoder)

    def part(self, start: int, stop: int) -> Ragged:
        """Return the rows from `start` to before `stop`, without copying values."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0], self.decoder)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the offsets of rows with these lengths, int64 `(rows + 1,)`."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


Column = np.ndarray | Ragged
"""The values of one field for many rows."""
