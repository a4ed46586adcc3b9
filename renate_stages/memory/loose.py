"""Read shards whose files are not in one folder, such as those in DVC's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from renate_stages.errors import DamagedStoreError
from renate_stages.memory.index import Shard
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import ExampleSpec

Locate = Callable[[str], Path | None]
"""Returns where the file of a store with this name is, or None."""


def read_columns(
    shard: Shard, spec: ExampleSpec, paths: Iterable[str], locate: Locate
) -> dict[str, Column] | None:
    """Return some fields of all rows of a shard, by path; None if a file is nowhere.

    Args:
        shard: Of a store's index.
        spec: Of its rows: without the metadata that they lack.
        paths: Fields of it.
        locate: Finds a file by its name in the store.

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
            problem = (
                f"holds {len(columns[path])} rows of {values.dtype}, not {shard.rows} of {each}"
            )
            raise DamagedStoreError(Path(shard.file(path)), problem)
    return columns


def _array(file: Path | None) -> np.ndarray | None:
    if file is None:
        return None
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedStoreError(file, f"is not a plain NumPy array ({error})") from error
