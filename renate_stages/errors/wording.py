"""Parts of sentences that messages share."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 row` or `2 rows`.

    Args:
        number: How many, at least 0.
        noun: Singular of a noun whose plural adds an s.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
