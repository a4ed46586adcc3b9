"""`retention.never_keep`: find rows from sources that must not be kept.

Values are converted to the type of the sources: "3" means the number 3 if sources are numbers. A
value that no source can equal is an error, because it would silently exclude nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from renate_stages.errors import NeverKeepError
from renate_stages.memory import ExampleStore, Field
from renate_stages.memory.comparing import Constant, is_in, kind_of
from renate_stages.memory.spec import METADATA

SOURCE = METADATA + "source"
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def check_never_keep(values: Sequence[Constant], stores: Iterable[ExampleStore]) -> None:
    """Check that a source in one of the stores can equal each value; reads no arrays.

    Raises:
        NeverKeepError: If no store's sources can equal a value. Stores without sources are ignored.
    """
    fields = {field for store in stores if (field := _field(store)) is not None}
    for value in values if fields else ():
        if all(_as(field, value) is None for field in fields):
            raise NeverKeepError(value, sorted({_described(field) for field in fields}))


def never_kept(store: ExampleStore, values: Sequence[Constant]) -> np.ndarray:
    """Return which stored rows come from these sources, dead rows included, bool.

    Rows of unknown source do not match.
    """
    field = _field(store)
    if not values or field is None:
        return np.zeros(store.offsets[-1], dtype=bool)
    fitting = [converted for value in values if (converted := _as(field, value)) is not None]
    if not fitting:
        return np.zeros(store.offsets[-1], dtype=bool)
    return is_in(store.stored_column(SOURCE), fitting) & store.stored_known(SOURCE)


def _field(store: ExampleStore) -> Field | None:
    return store.spec.metadata.get(SOURCE) if store.spec else None


def _as(field: Field, value: Constant) -> Constant | None:
    """Convert a value to the type of a field; None if no value of the field can equal it."""
    kind = None if field.shape else kind_of(np.empty(0, field.dtype))
    if kind == "text":
        if not isinstance(value, str) or "\0" in value:
            return None
        return value if len(value.encode()) <= field.dtype.itemsize else None
    if kind is None:
        return None
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        return float(value) if _NUMBER.fullmatch(value) else None
    return None if math.isnan(value) else value


def _described(field: Field) -> str:
    if field.shape:
        return f"arrays of shape {field.shape}"
    return (
        f"strings of up to {field.dtype.itemsize} bytes" if field.dtype.kind == "S" else "numbers"
    )
