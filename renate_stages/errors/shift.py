"""Rows that cannot be compared, and detectors that cannot compare them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean


class UncomparableRowsError(RenateStagesError):
    """Rows of which no shift can be computed."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"shift: {problem}.\nTo mend it: {cure}.")


class UnfittedDetectorError(RenateStagesError):
    """A detector that has seen no reference rows."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the detector {name} has no reference rows.\nTo mend it: call fit(reference) first."
        )


class UnknownDetectorError(RenateStagesError):
    """A name of no detector."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"there is no shift detector '{name}'{did_you_mean(name, names)}; expected one of "
            f"{', '.join(names)}"
        )


class StaleDataMetricsError(RenateStagesError):
    """`metrics/data.json` is of another update than the open one."""

    def __init__(self, path: Path | str, number: int) -> None:
        super().__init__(
            f"{path} is not of update {number}, the open one.\nTo mend it: put its data in place, "
            "`dvc add data/incoming`, `dvc repro prepare`."
        )
