"""Format tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Format rows as CSV with a header; floats get 8 significant digits, None is an empty cell."""
    columns = list(columns)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    for row in rows:
        cells = (row.get(column) for column in columns)
        lines.writerow([f"{c:.8g}" if isinstance(c, float) else c for c in cells])
    return text.getvalue()
