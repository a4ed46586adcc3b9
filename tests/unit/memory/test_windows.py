"""The fast gather over many maps is the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from renate_stages.memory.windows import Windows


@pytest.mark.parametrize("dtype", ["uint8", "float32", "<i8", "bool", "complex64", "S32"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_windows_are_the_plain_gather(tmp_path, dtype, shape):
    generator = np.random.default_rng(0)
    arrays = []
    for number, rows in enumerate((3, 1, 40, 7)):
        values = generator.integers(0, 250, (rows, *shape)).astype(dtype)
        np.save(tmp_path / f"{number}.npy", values)
        arrays.append(np.asarray(np.load(tmp_path / f"{number}.npy", mmap_mode="r")))
    generator.shuffle(arrays)
    offsets = np.cumsum([0] + [len(array) for array in arrays])
    windows = Windows(arrays, offsets)
    for rows in (np.arange(51), generator.integers(0, 51, 200), np.empty(0, np.int64)):
        found = windows.take(rows)
        assert found.dtype == arrays[0].dtype
        np.testing.assert_array_equal(found, windows.plain(rows))
    found[:] = 0  # copies, free to be changed


@pytest.mark.parametrize("row", [-1, 4, 10**12])
def test_what_lies_outside_is_never_read(row):
    windows = Windows([np.zeros((3, 2)), np.zeros((1, 2))], np.array([0, 3, 4]))
    with pytest.raises(IndexError):
        windows.take(np.array([0, row]))
