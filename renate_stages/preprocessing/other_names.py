"""Other names of a table's columns, from `rename`, and how raw rows with them are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from renate_stages.errors import TableError

FEW = 5  # columns that an error lists


class OtherNames:
    """The names that updates have called input columns in their files.

    They are not fitted: each update may add some, and none is lost, so that rows with an earlier and
    with a later name can be read.

    Args:
        columns: Names of the input columns, as the model knows them.
        known: The name of an input column by each other name.

    Raises:
        ValueError: If `known` is not valid, which may happen if it comes from a file.
    """

    def __init__(self, columns: Iterable[str], known: Any = None) -> None:
        self._columns = tuple(columns)
        self.known: dict[str, str] = {}
        known = {} if known is None else known
        if not isinstance(known, Mapping) or not {*known.values()} <= {*self._columns}:
            raise ValueError(f"other names of columns: {known!r:.80}")
        if {*known} & {*self._columns}:
            raise ValueError("another name of a column is itself a column")
        self.known = dict(known)

    def add(self, rename: Mapping[str, str]) -> None:
        """Add the names of an update, whose meaning replaces that of earlier updates.

        Args:
            rename: The known name of a column, by its name in the files; also of columns that are no
                inputs, which are not kept.

        Raises:
            TableError: If a column of the files has the name of an input column and is called
                otherwise, because a deployed model could not know which of the two is meant.
        """
        for name, known in rename.items():
            if name in self._columns and name != known:
                problem = (
                    f"rename calls '{name}' of the files '{known}', but '{name}' is an input too"
                )
                cure = "rename the columns in the files, so that no name has two meanings"
                raise TableError("data.module", problem, cure)
        found = {**self.known, **rename}
        self.known = {
            name: known for name, known in found.items() if known in self._columns and name != known
        }

    def of(self, column: str) -> tuple[str, ...]:
        """Return the other names of a column, sorted."""
        return tuple(sorted(name for name, known in self.known.items() if known == column))

    def resolved(self, table: pa.Table) -> pa.Table:
        """Return raw rows with the names that the model knows.

        Args:
            table: Raw rows, with one name for each input column.

        Raises:
            TableError: If a column is missing, or is there under two names.
        """
        given, names, lacking = {*table.column_names}, {}, []
        for column in self._columns:
            found = [name for name in (column, *self.of(column)) if name in given]
            if len(found) > 1:
                problem = f"the columns {_listed(found)} are names of the same input, '{column}'"
                raise TableError("rows", problem, "pass only one of them")
            names |= dict.fromkeys(found, column)
            lacking += [] if found else [column]
        if lacking:
            others = [name for name in table.column_names if name not in names]
            raise TableError("rows", *_lacking(lacking, others))
        if not len(table):  # its columns may have any type
            return pa.table({name: pa.nulls(0) for name in self._columns})
        return table.rename_columns([names.get(name, name) for name in table.column_names])


def _lacking(columns: list[str], others: list[str]) -> tuple[str, str]:
    """Return the problem if columns are missing, and the cure, which depends on other columns."""
    problem = f"columns are missing: {_listed(columns)}"
    if not others:
        cure = "pass a value, or null, for each column that the model was trained with"
        return problem, cure
    cure = (
        "if rows have such a column under another name, rename it; pass null only if they do not "
        "have its values at all"
    )
    return f"{problem}, and there are others: {_listed(others)}", cure


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more
