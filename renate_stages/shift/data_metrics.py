"""Types of `metrics/data.json`: counts of the new data, and its shift."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from renate_stages.files import typed
from renate_stages.files.typed import Content, Count, Figure, UpdateNumber


class Split(Content):
    """Number of rows and bytes of one split, and rows per class if targets are labels."""

    rows: Count
    bytes: Count = 0
    classes: dict[str, Count] = Field(default={})


class TestOutcome(Content):
    """Result of one shift test; see `shift.comparison.compare`."""

    __test__ = False  # pytest must not collect this class

    corrected_p_value: Figure
    effect_size: Figure
    p_value: Figure = None
    statistic: Figure = None


class Features(Content):
    """Number of features compared, and number of those that have shifted."""

    compared: Count
    shifted: Count
    most_shifted: str = ""


class ShiftFigures(Content):
    """Differences between the new data and the parent's; `model` and `parent` are metrics."""

    alarms: Count = 0
    tests: dict[str, TestOutcome] = Field(default={})
    features: Features | None = None
    model: dict[str, Figure] | None = None
    parent: dict[str, Figure] = Field(default={})


class DataMetrics(Content):
    """The whole file; None marks values that old releases did not write or that do not exist."""

    update: UpdateNumber | None = None
    train: Split | None = None
    val: Split | None = None
    test: Split | None = None
    shift: ShiftFigures | None = None

    @classmethod
    def read(cls, path: Path) -> DataMetrics:
        """Read the file; if it is missing, all values are None.

        Raises:
            MalformedFileError: If it does not have the form that `prepare` writes.
        """
        if not path.is_file():
            return cls()
        return typed.read_json(cls, path, "figures of the data", typed.RUN_AGAIN)
