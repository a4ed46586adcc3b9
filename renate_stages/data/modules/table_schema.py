"""What the columns of a table are for, and of which kind its inputs are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from renate_stages.data.modules.table_files import Block
from renate_stages.errors import ChangedPreprocessingError, TableError
from renate_stages.preprocessing import table_values
from renate_stages.preprocessing.table import Kind, TablePreprocessing

LOOKED_AT = 100_000  # rows that decide the kind of a column
LONG = 50  # characters; texts that are longer on average are not categories


@dataclass(frozen=True)
class Roles:
    """The columns that the settings name.

    Args:
        targets: Columns of the targets.
        fields: Columns to keep as metadata, by the name of the field.
        kinds: Input columns whose kind is given.
        exclude: Columns to ignore.
    """

    targets: tuple[str, ...]
    fields: Mapping[str, str]
    kinds: Mapping[str, Kind]
    exclude: tuple[str, ...] = ()

    def check(self, listed: Sequence[str]) -> None:
        """Check that the settings do not contradict each other.

        Args:
            listed: All names in numeric, categorical, boolean and date.

        Raises:
            TableError: If they do.
        """
        if not self.targets:
            raise TableError("data.module", "target is empty", "name the column of the targets")
        every = [*listed, *self.exclude]
        for name in every:
            if every.count(name) > 1:
                cure = "list it once, in numeric, categorical, boolean, date or exclude"
                raise TableError("data.module", f"column '{name}' is listed more than once", cure)
        for name in self.targets:
            if name in every or self.targets.count(name) > 1:
                cure = "remove it from the other list"
                raise TableError("data.module", f"'{name}' is a target, and listed again", cure)


def infer_columns(
    roles: Roles, blocks: Iterable[Block], columns: Sequence[str] | None = None
) -> dict[str, Kind]:
    """Return the kind of each input column, by its name in the data, in order.

    Columns whose kind is given are inputs. All others are too, unless they are targets, metadata or
    excluded. Their kind is decided by the values of the first rows.

    Args:
        roles: The columns that the settings name.
        blocks: The rows.
        columns: Columns that were read; None: all.

    Raises:
        TableError: If a column is missing, has no value, or is neither numbers nor categories.
    """
    tables, rows, file = [], 0, ""
    for block in blocks:
        if tables and block.table.column_names != tables[0].column_names:
            new = sorted(set(block.table.column_names) ^ set(tables[0].column_names))
            cure = "give all files the same columns in the same order, or set data.module.files"
            what = f"its columns differ from those of {file}: {', '.join(new) or 'their order'}"
            raise TableError(block.file, what, cure)
        file = file or block.file
        tables.append(block.table)
        rows += len(block.table)
        if rows >= LOOKED_AT:
            break
    if not rows:
        raise TableError(file or "data/incoming", "there is no row", "put rows into the files")
    table = pa.concat_tables(tables, promote_options="permissive")
    apart = {*roles.targets, *roles.fields.values(), *roles.exclude} - set(roles.kinds)
    named = [*roles.targets, *roles.fields.values(), *roles.kinds]
    if lacking := [name for name in dict.fromkeys(named) if name not in table.column_names]:
        found = ", ".join(table.column_names)
        cure = f"correct data.module; the columns are: {found}"
        raise TableError(file, f"columns are missing: {', '.join(lacking)}", cure)
    kinds = {}
    for name in table.column_names:
        if name not in apart:
            kinds[name] = roles.kinds.get(name) or _kind_of(name, table[name], file)
    if not kinds:
        raise TableError(file, "no column is an input", "leave a column for the inputs")
    return kinds


def check_schema(roles: Roles, fitted: TablePreprocessing) -> None:
    """Check that the settings still describe the columns that were fitted.

    Raises:
        ChangedPreprocessingError: If a column is of another kind, or is an input no longer.
    """
    cure = "restore the settings in data.module, or start a new project for other inputs"
    for name, kind in roles.kinds.items():
        if fitted.columns.get(name) != kind:
            was = fitted.columns.get(name, "not an input")
            problem = f"column '{name}' is {kind}, but in earlier updates it was {was}"
            raise ChangedPreprocessingError("data.module", problem, cure)
    for name in (*roles.targets, *roles.exclude):
        if name in fitted.columns:
            problem = f"column '{name}' was an input in earlier updates"
            raise ChangedPreprocessingError("data.module", problem, cure)


def _kind_of(name: str, column: pa.ChunkedArray, file: str) -> Kind:
    """Return the kind of a column by its values."""
    kind, where = column.type, f"{file}, column '{name}'"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "date"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numeric"
    if not (table_values.is_text(kind) or pa.types.is_null(kind)):
        cure = "store numbers, texts, booleans or dates, or add it to data.module.exclude"
        raise TableError(where, f"it has values of type {kind}", cure)
    texts, places = table_values.dictionary_of(column)
    if not texts:
        cure = "list it in numeric, categorical, boolean, date or exclude of data.module"
        raise TableError(where, "it has no value, so its kind is unknown", cure)
    for guess in ("numeric", "boolean", "date"):
        _, bad = table_values.CONVERSIONS[guess](pa.chunked_array([pa.array(texts)]), name)
        if not bad:
            return guess
    known = places[places >= 0]
    lengths = np.array([len(text) for text in texts])
    if lengths[known].mean() > LONG or (len(texts) > 100 and len(texts) > 0.9 * len(known)):
        what = f"its {len(known)} values are {len(texts)} different texts, such as {texts[0]!r:.40}"
        cure = "list it in exclude of data.module, or in categorical if these are categories"
        raise TableError(where, what, cure)
    return "categorical"
