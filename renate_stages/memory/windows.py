"""Gather rows from many memory maps in one NumPy call."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_uint8
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided


class Windows:
    """Rows of several read-only arrays, addressed as if they were in one array.

    A gather shard by shard costs some microseconds per shard; with 200 shards that is ten times the
    cost of copying 256 images. This class views all memory from the first array to the end of the
    last as windows of one row's bytes, one window per byte address. It reads only windows that begin
    at a row, never the memory between the arrays. `plain` is the simple reference implementation.

    Args:
        arrays: C-contiguous arrays `(rows, ...)` of one dtype and row shape; kept alive.
        offsets: Number of rows before each array, then their total, int64 `(len(arrays) + 1,)`.
    """

    def __init__(self, arrays: Sequence[np.ndarray], offsets: np.ndarray) -> None:
        self._arrays = list(arrays)
        self._offsets = offsets
        self._row_bytes = arrays[0].dtype.itemsize * int(np.prod(arrays[0].shape[1:]))
        addresses = np.array([array.ctypes.data for array in arrays], dtype=np.int64)
        first = int(addresses.min())
        span = max(int(a) + each.nbytes for a, each in zip(addresses, arrays, strict=True)) - first
        memory: Any = (c_uint8 * span).from_address(first)
        shape = (span - self._row_bytes + 1, self._row_bytes)
        self._windows = as_strided(
            np.frombuffer(memory, np.uint8), shape, strides=(1, 1), writeable=False
        )
        self._starts = addresses - first - offsets[:-1] * self._row_bytes

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return copies of rows in the given order, `(n, ...)`.

        Args:
            rows: Row numbers, int64 `(n,)`, each from 0 to `offsets[-1]` − 1.

        Raises:
            IndexError: If a row is outside this range, where the memory must not be read.
        """
        if not len(rows):
            return self._arrays[0][:0].copy()
        if rows.min() < 0 or rows.max() >= self._offsets[-1]:
            raise IndexError(f"rows {rows.min()} … {rows.max()} of {self._offsets[-1]}")
        array = np.searchsorted(self._offsets, rows, side="right") - 1
        window = self._windows[self._starts[array] + rows * self._row_bytes]
        like = self._arrays[0]
        return window.view(like.dtype).reshape(len(rows), *like.shape[1:])

    def plain(self, rows: np.ndarray) -> np.ndarray:
        """Return what `take` returns, with one gather per array."""
        like = self._arrays[0]
        result = np.empty((len(rows), *like.shape[1:]), like.dtype)
        for number, array in enumerate(self._arrays):
            mine = (rows >= self._offsets[number]) & (rows < self._offsets[number + 1])
            result[mine] = array[rows[mine] - self._offsets[number]]
        return result
