"""What the columns of a table are for, and of which kind its inputs are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from renate_stages.data.modules.table_files import Block
from renate_stages.errors import ChangedPreprocessingError, TableError
from renate_stages.memory.row_weights import WEIGHT
from renate_stages.preprocessing import table_texts, table_values
from renate_stages.preprocessing.table import Kind, TablePreprocessing

LOOKED_AT = 100_000  # rows that decide the kind of a column
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas adds to Parquet files
LONG = 50  # characters; texts that are longer on average are not categories
MOST = 0.5  # of the different texts of a column; above it, the others are rather mistakes
FEW, SENTENCE = 20, 3  # different texts, and words of each on average, that are hardly categories
OTHER_DATE = r"[0-9]{1,4}([./-])[0-9]{1,2}\1[0-9]{1,4}([ T].*)?"  # such as 31.12.2026


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

    @property
    def weight(self) -> str | None:
        """The column of the rows' weights; None: all rows count alike."""
        return self.fields.get(WEIGHT)

    def check(self, listed: Sequence[str]) -> None:
        """Check that the settings do not contradict each other.

        Args:
            listed: All names in numeric, categorical, boolean, date and text.

        Raises:
            TableError: If they do.
        """
        if not self.targets:
            raise TableError("data.module", "target is empty", "name the column of the targets")
        every = [*listed, *self.exclude]
        for name in every:
            if every.count(name) > 1:
                cure = "list it once, in numeric, categorical, boolean, date, text or exclude"
                raise TableError("data.module", f"column '{name}' is listed more than once", cure)
        if self.weight is not None and self.weight in (*every, *self.targets):
            cure = "remove it from target, numeric, categorical, boolean, date or exclude"
            what = f"'{self.weight}' is the weight, and listed again"
            raise TableError("data.module", what, cure)
        for name in self.targets:
            if name in every or self.targets.count(name) > 1:
                cure = "remove it from the other list"
                raise TableError("data.module", f"'{name}' is a target, and listed again", cure)


def infer_columns(roles: Roles, blocks: Iterable[Block]) -> dict[str, Kind]:
    """Return the kind of each input column, by its name in the data, in order.

    Columns whose kind is given are inputs. All others are too, unless they are targets, metadata or
    excluded. Their kind is decided by the values of the first rows.

    Args:
        roles: The columns that the settings name.
        blocks: The rows.

    Raises:
        TableError: If a column is missing, has no value, is neither numbers nor categories, or may
            be both.
    """
    tables, rows, file = [], 0, ""
    for block in blocks:
        names = tables[0].column_names if tables else block.table.column_names
        if new := sorted(set(block.table.column_names) ^ set(names)):
            cure = "give all files the same columns, or set data.module.files"
            what = f"its columns differ from those of {file}: {', '.join(new)}"
            raise TableError(block.file, what, cure)
        file = file or block.file
        tables.append(block.table.select(names))
        rows += len(block.table)
        if rows >= LOOKED_AT:
            break
    if not rows:
        raise TableError(file or "data/incoming", "there is no row", "put rows into the files")
    table = _joined(tables)
    apart = {*roles.targets, *roles.fields.values(), *roles.exclude} - set(roles.kinds)
    named = [*roles.targets, *roles.fields.values(), *roles.kinds]
    if lacking := [name for name in dict.fromkeys(named) if name not in table.column_names]:
        found = ", ".join(table.column_names)
        cure = f"correct data.module; the columns are: {found}"
        if len(table.column_names) == 1 and (other := re.search(r"[;\t|,]", found)):
            cure = f"set data.module.delimiter, such as {other[0]!r}"
        raise TableError(file, f"columns are missing: {', '.join(lacking)}", cure)
    kinds = {}
    for name in table.column_names:
        if name not in apart and not PANDAS_INDEX.fullmatch(name):
            kinds[name] = roles.kinds.get(name) or _kind_of(name, table[name], file)
    if not kinds:
        raise TableError(file, "no column is an input", "leave a column for the inputs")
    return kinds


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return all rows; a column whose type differs between files becomes texts, as in CSV."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        columns = {}
        for name in tables[0].column_names:
            parts = [table_texts.combined(table[name]) for table in tables]
            scalar = all(table_texts.fits(part.type, "categorical") for part in parts)
            if scalar and len({part.type for part in parts}) > 1:
                parts = [table_texts.as_texts(part) for part in parts]
            try:
                columns[name] = pa.chunked_array(parts)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                cure = "write all files with the same types, or exclude the column"
                raise TableError(
                    f"column '{name}'", "its type differs between files", cure
                ) from error
        return pa.table(columns)


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
    weight = () if roles.weight is None else (roles.weight,)
    for name in (*roles.targets, *roles.exclude, *weight):
        if name in fitted.columns:
            problem = f"column '{name}' was an input in earlier updates"
            raise ChangedPreprocessingError("data.module", problem, cure)


def _kind_of(name: str, column: pa.ChunkedArray, file: str) -> Kind:
    """Return the kind of a column by its values."""
    kind, where = column.type, f"{file}, column '{name}'"
    if not table_texts.fits(kind, "categorical"):
        cure = "store numbers, texts, booleans or dates, or add it to data.module.exclude"
        raise TableError(where, f"it has values of type {kind}", cure)
    if pa.types.is_dictionary(kind) and table_texts.is_text(kind):
        return "categorical"
    if pa.types.is_boolean(kind):
        return "boolean"
    if table_texts.is_date(kind):
        return "date"
    if table_texts.is_number(kind):
        return "numeric"
    values, bad = table_values.numbers(column, name)
    if not bad and not np.isnan(values).all():
        return "numeric"
    texts, places = table_texts.dictionary_of(column)
    if not texts:
        cure = "list it in numeric, categorical, boolean, date, text or exclude of data.module"
        raise TableError(where, "it has no value, so its kind is unknown", cure)
    if all(text.lower() in table_values.BOOLEANS for text in texts):
        return "boolean"
    return _kind_of_texts(texts, places[places >= 0], where)


def _kind_of_texts(texts: list[str], places: np.ndarray, where: str) -> Kind:
    """Return the kind of a column of texts that are neither all numbers nor all booleans.

    Raises:
        TableError: If they are hardly categories.
    """
    not_dates = table_values.dates(pa.array(texts), "")[1]
    if not not_dates:
        return "date"
    numbers = {text for text in texts if re.match(table_values.NUMBER, text)}
    if len(numbers) == len(texts):
        return "numeric"  # some are too large, and these rows will be rejected
    commas = [text for text in texts if re.match(table_values.COMMA, text)]
    other_dates = [text for text in texts if re.fullmatch(OTHER_DATE, text)]
    most = MOST * len(texts)
    cure = "list it in categorical of data.module if these are categories"
    if commas and len(numbers) + len(commas) > most:
        what = f"it has numbers with a comma, such as {commas[0]!r}"
        point = "write numbers with a decimal point and without thousands separators"
        raise TableError(where, what, f"{point}, or {cure}")
    if len(numbers) > most:
        other = next(text for text in texts if text not in numbers)
        what = f"most of its values are numbers, but not all, such as {other!r:.80}"
        raise TableError(where, what, f"list it in numeric, to reject rows with others; or {cure}")
    if len(texts) - len(not_dates) > most:
        what = f"most of its values are dates, but not all, such as {texts[min(not_dates)]!r:.80}"
        raise TableError(where, what, f"list it in date, to reject rows with others; or {cure}")
    if len(other_dates) > most:
        what = f"it has dates that are not in ISO 8601, such as {other_dates[0]!r:.80}"
        raise TableError(where, what, f"write dates as 2026-12-31, or {cure}")
    if _are_free_texts(texts, places):
        what = (
            f"its {len(places)} values are {len(texts)} different texts, such as {texts[0]!r:.40}"
        )
        cure = "list it in exclude of data.module, or in categorical if these are categories"
        if sum(" " in text for text in texts) > most:
            cure = (
                "list it in text of data.module to read its words, in exclude to leave it out, or in "
                "categorical if these are categories"
            )
        raise TableError(where, what, cure)
    return "categorical"


def _are_free_texts(texts: list[str], places: np.ndarray) -> bool:
    """Return whether texts are rather comments or names than categories.

    Args:
        texts: The different texts.
        places: The place of each row's text among them.
    """
    lengths = np.array([len(text) for text in texts])
    if lengths[places].mean() > LONG or (len(texts) > 100 and len(texts) > 0.9 * len(places)):
        return True
    words = np.array([len(text.split()) for text in texts])
    return len(texts) > FEW and len(texts) > MOST * len(places) and words.mean() >= SENTENCE
