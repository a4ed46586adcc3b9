"""Turn raw rows in any usual form into an Arrow table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renate_stages.errors import TableError


def as_table(rows: Any) -> Any:
    """Return rows as an Arrow table.

    Args:
        rows: An Arrow table, a DataFrame, a list of dicts, or a dict of lists.

    Raises:
        TableError: If they have another form, or a column has values of several types.
    """
    import pyarrow as pa

    try:
        if isinstance(rows, pa.Table):
            return rows
        if isinstance(rows, pa.RecordBatch):
            return pa.Table.from_batches([rows])
        if isinstance(rows, Mapping):
            if single := [
                name
                for name, each in rows.items()
                if isinstance(each, str) or not hasattr(each, "__iter__")
            ]:
                cure = "pass a list of dicts for rows, or a dict of lists for columns"
                raise TableError("rows", f"'{single[0]}' is one value, not a list", cure)
            return pa.table({name: _array(list(each)) for name, each in rows.items()})
        if isinstance(rows, Sequence) and all(isinstance(each, Mapping) for each in rows):
            names = dict.fromkeys(name for each in rows for name in each)
            return pa.table({name: _array([each.get(name) for each in rows]) for name in names})
        if hasattr(rows, "columns") and hasattr(rows, "index"):
            return pa.Table.from_pandas(rows, preserve_index=False)
        if hasattr(rows, "__arrow_c_stream__"):  # a DataFrame of another library
            return pa.table(rows)
    except (TypeError, ValueError, OverflowError, pa.ArrowNotImplementedError) as error:
        cure = "give all values of a column one type, and each column a name of its own"
        raise TableError("rows", f"{error}", cure) from error
    cure = "pass a DataFrame, an Arrow table, a list of dicts or a dict of lists"
    raise TableError("rows", f"found a {type(rows).__name__}", cure)


def _array(values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, from_pandas=True)  # NaN among texts is a missing value
