"""Read shards whose files are not in one folder, such as files in DVC's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from renate_stages.errors import DamagedStoreError
from renate_stages.memory.index import Shard
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import ExampleSpec

Locate = Callable[[str], Path | None]
"""Returns the path of a store's file, given its name in the store, or None if there is no copy."""


def read_columns(
    shard: Shard, spec: ExampleSpec, paths: Iterable[str], locate: Locate
) -> dict[str, Column] | None:
    """Return fields of all rows of a shard, by path; None if a file cannot be located.

    Args:
        shard: A shard of a store's index.
        spec: The spec of its rows, without metadata that they lack.
        paths: The fields to read.
        locate: Returns the path of a file, given its name in the store.

    Raises:
        DamagedStoreError: If a file is not the array that the index describes.
    """
    columns: dict[str, Column] = {}
    for path in paths:
        each = spec.all_fields[path]
        values = _array(locate(shard.file(path)))
        if values is None:
            return None
        columns[path] = values
        if each.ragged:
            offsets = _array(locate(shard.offsets_file(path)))
            if offsets is None:
                return None
            columns[path] = Ragged(values, offsets, each.decoder)
        if len(columns[path]) != shard.rows or values.dtype != each.dtype:
            problem = f"found {len(columns[path])} rows of {values.dtype}, expected {shard.rows} of {each}"
            raise DamagedStoreError(Path(shard.file(path)), problem)
    return columns


def _array(file: Path | None) -> np.ndarray | None:
    if file is None:
        return None
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedStoreError(file, f"is not a plain NumPy array ({error})") from error
