"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from renate_stages.errors.redaction import hide_secrets

UNKNOWN = "unknown"  # shown for figures that are not finite


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table; numbers with a fraction get four digits."""
    head = list(head)
    cells = [
        [f"{c:.4f}" if isinstance(c, float) else hide_secrets(_cell(c)) for c in row]
        for row in rows
    ]
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---' for _ in head)}|",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]


def _cell(content: object) -> str:
    return str(content).replace("|", "\\|")
