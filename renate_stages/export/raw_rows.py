"""What raw rows an exported model takes, in its model card."""

from __future__ import annotations

from renate_stages.preprocessing import Preprocessing, RawColumn

KINDS = {
    "number": "number",
    "boolean": "true or false",
    "date": "date or time, ISO 8601",
    "category": "category",
    "text": "text",
    "image": "bytes of a JPEG or PNG file",
}
"""For each kind of column, what its values are."""


def card_sections(preprocessing: Preprocessing | None) -> list[str]:
    """Return the model card's section on predictions from raw rows; empty without a preprocessing."""
    if preprocessing is None:
        return []
    columns = preprocessing.raw_columns
    lines = [
        "## Predictions from raw rows",
        "",
        "With renate-stages and the packages of `renate_config.py`, the folder encodes raw rows itself:",
        "",
        "```python",
        "from renate_stages.export import load",
        "",
        'load(".").predict(rows)  # a DataFrame',
        "```",
        "",
    ]
    if columns:
        lines += ["| column | values | may be missing |", "|---|---|---|", *map(_row, columns), ""]
    return ["\n".join(lines)]


def _row(column: RawColumn) -> str:
    name, *others = (f"`{each}`".replace("|", "\\|") for each in (column.name, *column.other_names))
    name += f", or {' or '.join(others)}" if others else ""
    return f"| {name} | {KINDS[column.kind]} | {'yes' if column.optional else 'no'} |"
