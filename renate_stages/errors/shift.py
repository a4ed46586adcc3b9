"""Errors of shift detection: rows that cannot be compared, unknown or unfitted detectors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean


class UncomparableRowsError(RenateStagesError):
    """Shift cannot be computed for these rows."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"shift: {problem}.\nTo fix this: {cure}.")


class UnfittedDetectorError(RenateStagesError):
    """A detector has no reference rows yet."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the detector {name} has no reference rows.\nTo fix this: call fit(reference) first."
        )


class UnknownDetectorError(RenateStagesError):
    """No shift detector has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"unknown shift detector '{name}'{did_you_mean(name, names)}; expected one of "
            f"{', '.join(names)}"
        )


class UnpreparedDataError(RenateStagesError):
    """The data was changed after `prepare` compared it with earlier data."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"data/incoming was changed after `prepare` had read it, so {path} is about other data."
            "\nTo fix this: run `dvc repro prepare`."
        )


class StaleDataMetricsError(RenateStagesError):
    """`metrics/data.json` belongs to another update than the open one."""

    def __init__(self, path: Path | str, number: int) -> None:
        super().__init__(
            f"{path} belongs to an earlier update, but update {number} is open.\nTo fix this: put "
            f"the data of update {number} in data/incoming, then run `dvc add data/incoming` and "
            "`dvc repro prepare`."
        )
