"""Tables of examples in a stored state, and their renumbering when rows leave the memory.

A table is `{"table": PATH, "columns": [NAMES]}` in the JSON, with a tensor `PATH/NAME` for each
column. The column `rows` holds row numbers, int64 `(n,)`; other columns hold values of each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Table:
    """Columns of equal length; the column `rows` holds row numbers, int64."""

    columns: dict[str, Tensor]


def tables_in(stored: Any) -> list[Mapping[str, Any]]:
    """Return all tables in a value that `Encoder.encode` returned."""
    if isinstance(stored, list):
        return [table for value in stored for table in tables_in(value)]
    if not isinstance(stored, Mapping):
        return []
    own = [stored] if "table" in stored else []
    return own + [table for value in stored.values() for table in tables_in(value)]


def rows_in(stored: Any, tensors: Mapping[str, Tensor]) -> np.ndarray:
    """Return the numbers of all rows in tables, without duplicates, ascending, int64."""
    rows = [tensors[f"{table['table']}/rows"].numpy() for table in tables_in(stored)]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *rows]))


def renumber(stored: Any, tensors: dict[str, Tensor], number: np.ndarray) -> None:
    """Renumber the rows of all tables in place, and remove rows that have left.

    Args:
        stored: What `Encoder.encode` returned.
        tensors: The encoder's tensors.
        number: New number of each row, int64; -1 if the row has left.
    """
    for table in tables_in(stored):
        path = table["table"]
        rows = torch.from_numpy(number)[tensors[f"{path}/rows"]]
        stay = rows >= 0
        for name in table["columns"]:
            tensors[f"{path}/{name}"] = tensors[f"{path}/{name}"][stay]
        tensors[f"{path}/rows"] = rows[stay]
