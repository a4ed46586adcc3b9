"""Rows of new data that cannot be used: a data module leaves them out and says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from renate_stages import files
from renate_stages.errors import TooManyRejectedError
from renate_stages.files.csv_file import csv_text

REJECTED = "rejected.csv"  # in work/prepared; in .renate/ if there are too many


class Rejected(NamedTuple):
    """One row that a data module has left out.

        self.rejected.append(Rejected("week-3.csv", 17, "age is not a number"))

    Args:
        file: The file, relative to the folder of the update's data.
        row: Line of a text file or row of another file, from 1 on; None: the file is the row.
        reason: Why it cannot be used, in words that are equal for equal reasons, so that they can be
            counted.
    """

    file: str
    row: int | None
    reason: str

    @property
    def place(self) -> str:
        """The file and, if there is one, the row."""
        return self.file if self.row is None else f"{self.file}, row {self.row}"


def counted_by_reason(rejected: Iterable[Rejected]) -> dict[str, int]:
    """Return the number of rejected rows for each reason, the most frequent reason first."""
    counts = Counter(each.reason for each in rejected)
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def list_rejected(rejected: Iterable[Rejected], path: Path) -> None:
    """Write all rejected rows to a CSV file with the columns file, row and reason."""
    files.write_text(path, csv_text(Rejected._fields, (each._asdict() for each in rejected)))


def check_rejected(
    rejected: Sequence[Rejected], rows: int, most: float, folder: Path | None = None
) -> None:
    """Check that a data module did not reject too many rows.

    Args:
        rejected: The rows that it left out.
        rows: Rows that it read, with those.
        most: Maximum share of rejected rows, `data.max_rejected`.
        folder: Gets `rejected.csv` with all of them if there are too many; a list of an earlier run is
            removed. None: the error alone says which they are.

    Raises:
        TooManyRejectedError: If there are more.
    """
    path = None if folder is None else folder / REJECTED
    if len(rejected) <= most * max(rows, len(rejected)):
        if path is not None:
            path.unlink(missing_ok=True)
        return
    listed = None
    if path is not None:
        with suppress(OSError):  # the error on the rows must not be lost if the disk is full
            list_rejected(rejected, path)
            listed = f"{path.parent.name}/{path.name}"
    reasons = counted_by_reason(rejected)
    raise TooManyRejectedError(len(rejected), rows, most, rejected, reasons, listed)
