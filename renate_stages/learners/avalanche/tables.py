"""Tables of rows in a stored state, renumbered when rows leave the memory.

A table is `{"table": PATH, "columns": [NAMES]}` in the JSON, and a tensor `PATH/NAME` for each column;
`rows` holds the numbers of the rows, int64 `(n,)`, and the others what is known beside each.
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
    """Columns of equal length about rows; `rows` are their numbers, int64."""

    columns: dict[str, Tensor]


def tables_in(stored: Any) -> list[Mapping[str, Any]]:
    """Return every table in what `Encoder.encode` returned."""
    if isinstance(stored, list):
        return [table for each in stored for table in tables_in(each)]
    if not isinstance(stored, Mapping):
        return []
    own = [stored] if "table" in stored else []
    return own + [table for each in stored.values() for table in tables_in(each)]


def rows_in(stored: Any, tensors: Mapping[str, Tensor]) -> np.ndarray:
    """Return all rows that are kept, each once, ascending, int64."""
    found = [tensors[f"{table['table']}/rows"].numpy() for table in tables_in(stored)]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *found]))


def renumber(stored: Any, tensors: dict[str, Tensor], number: np.ndarray) -> None:
    """Give rows new numbers, in place, and take out those that have none.

    Args:
        stored: What `Encoder.encode` returned.
        tensors: Its tensors.
        number: Of each row the new one, int64; -1: it is no more.
    """
    for table in tables_in(stored):
        path = table["table"]
        rows = torch.from_numpy(number)[tensors[f"{path}/rows"]]
        stay = rows >= 0
        for name in table["columns"]:
            tensors[f"{path}/{name}"] = tensors[f"{path}/{name}"][stay]
        tensors[f"{path}/rows"] = rows[stay]
