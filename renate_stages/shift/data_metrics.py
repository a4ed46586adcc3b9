"""The types of `metrics/data.json`: counts of the new data, and its shift."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from renate_stages.files import typed
from renate_stages.files.typed import Content, Count, Figure, UpdateNumber


class Split(Content):
    """The rows of one split, their bytes, and how many each class has where targets are labels."""

    rows: Count
    bytes: Count = 0
    classes: dict[str, Count] = Field(default={})


class TestOutcome(Content):
    """What one test of a shift gave; see `shift.comparison.compare`."""

    __test__ = False  # of pytest's

    corrected_p_value: Figure
    effect_size: Figure
    p_value: Figure = None
    statistic: Figure = None


class Features(Content):
    """How many single features were compared, and how many of these are shifted."""

    compared: Count
    shifted: Count
    most_shifted: str = ""


class ShiftFigures(Content):
    """How the new data differs from the parent's; `model` and `parent` are metrics by name."""

    alarms: Count = 0
    tests: dict[str, TestOutcome] = Field(default={})
    features: Features | None = None
    model: dict[str, Figure] | None = None
    parent: dict[str, Figure] = Field(default={})


class DataMetrics(Content):
    """The file. What is None an older release did not write, or there was nothing to compare with."""

    update: UpdateNumber | None = None
    train: Split | None = None
    val: Split | None = None
    test: Split | None = None
    shift: ShiftFigures | None = None

    @classmethod
    def read(cls, path: Path) -> DataMetrics:
        """Read the file; a missing one says nothing.

        Raises:
            MalformedFileError: If it is not what `prepare` writes.
        """
        if not path.is_file():
            return cls()
        return typed.read_json(cls, path, "figures of the data", typed.RUN_AGAIN)
