"""Types of `metrics/data.json`: counts of the new data, and its shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from renate_stages.errors.wording import counted
from renate_stages.files import typed
from renate_stages.files.typed import Content, Count, Figure, Finite, UpdateNumber


class Weights(Content):
    """Weights of the rows of a split, and the number of rows of weight 0."""

    least: Finite
    mean: Finite
    largest: Finite
    zero: Count = 0


SHARES = ("missing", "share_of_unknown_words")  # figures of a preprocessing in [0, 1]
LISTED = 10  # names in one line


class Split(Content):
    """Number of rows and bytes of one split, and rows per class if targets are labels."""

    rows: Count
    bytes: Count = 0
    classes: dict[str, Count] = Field(default={})
    weights: Weights | None = None


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


class ColumnFigures(Content):
    """The shift of a named column; see `shift.features.FeatureShift`."""

    distance: Figure
    p_value: Figure = None
    psi: Figure = None
    mean_change: Figure = None
    missing_change: Figure = None
    missing_p_value: Figure = None


class Interval(Content):
    """A 95 % interval."""

    low: Figure
    high: Figure


class PastEstimate(Content):
    """Estimated and actual accuracy on a past holdout."""

    estimated: Figure
    accuracy: Figure


class EstimatedPerformance(Content):
    """Estimated accuracy of the parent's model on new rows without labels; see `shift.estimate`."""

    accuracy: Figure
    rows: Count
    error: Figure = None
    holdout: dict[str, PastEstimate] = Field(default={})


class ShiftFigures(Content):
    """Differences between the new data and the parent's; `model` and `parent` are metrics."""

    alarms: Count = 0
    tests: dict[str, TestOutcome] = Field(default={})
    features: Features | None = None
    columns: dict[str, ColumnFigures] = Field(default={})
    thresholds: dict[str, TestOutcome] = Field(default={})
    model: dict[str, Figure] | None = None
    interval: Interval | None = None
    parent: dict[str, Figure] = Field(default={})
    estimated_performance: EstimatedPerformance | None = None


class Rows(Content):
    """A number of rows."""

    rows: Count


class RejectedRows(Content):
    """Number of rows that the data module left out, in all and by reason."""

    rows: Count
    reasons: dict[str, Count] = Field(default={})


class LabelFigures(Content):
    """Labels of the new data that the parent has not seen; see `state.label_figures`.

    Args:
        new: Number of training and test rows, by label; None if it is unknown what the parent has
            seen.
        new_rows: Number of training and test rows with such a label.
        differ_only_in_case: The label that a new one looks like, by the new one.
    """

    new: dict[str, Count] | None = None
    new_rows: Count = 0
    differ_only_in_case: dict[str, str] = Field(default={})

    @property
    def by_rows(self) -> dict[str, int]:
        """The new labels with their number of rows, the most frequent first."""
        return dict(sorted((self.new or {}).items(), key=lambda each: (-each[1], each[0])))

    def lines(self) -> list[str]:
        """Return lines for the user."""
        new = self.by_rows
        shown = [
            f"{name} ({rows})" if rows else f"{name} (only validation data)"
            for name, rows in new.items()
        ]
        lines = [f"new labels, with training and test rows: {first_of(shown)}"] if shown else []
        for name, other in list(self.differ_only_in_case.items())[:LISTED]:
            lines.append(
                f"label '{name}' ({counted(new.get(name, 0), 'row')}) looks like '{other}': they differ only in "
                f"case, spaces or Unicode form; to merge them, map '{name}' to '{other}' in "
                "data.labels.rename"
            )
        if (more := len(self.differ_only_in_case) - LISTED) > 0:
            lines.append(f"{more} more labels look like others; see metrics/data.json")
        return lines


class DataMetrics(Content):
    """The whole file; None marks values that old releases did not write or that do not exist."""

    update: UpdateNumber | None = None
    train: Split | None = None
    val: Split | None = None
    test: Split | None = None
    shift: ShiftFigures | None = None
    rejected: RejectedRows | None = None
    preprocessing: dict[str, dict[str, Figure]] = Field(default={})
    labels: LabelFigures | None = None
    forgotten: Rows | None = None
    held_out: Rows | None = None
    in_memory: dict[str, Count] = Field(default={})
    reused_ids: Rows | None = None

    @classmethod
    def read(cls, path: Path) -> DataMetrics:
        """Read the file; if it is missing, all values are None.

        Raises:
            MalformedFileError: If it does not have the form that `prepare` writes.
        """
        if not path.is_file():
            return cls()
        return typed.read_json(cls, path, "figures of the data", typed.RUN_AGAIN)


def lines_of(rejected: Mapping[str, Any], fitted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines for the user on rejected rows, and on what is new in the data.

    Args:
        rejected: The entry `rejected` of the file.
        fitted: The entry `preprocessing`: numbers by what they count and by column.
    """
    lines = []
    if rejected.get("rows"):
        reasons = ", ".join(f"{reason}: {rows}" for reason, rows in rejected["reasons"].items())
        lines.append(
            f"rejected rows: {rejected['rows']} ({reasons}); see work/prepared/rejected.csv"
        )
    for what, columns in fitted.items():
        numbers = (f"{name} {_shown(what, value)}" for name, value in columns.items() if value)
        if listed := ", ".join(numbers):
            lines.append(f"{what.replace('_', ' ')}: {listed}")
    return lines


def first_of(names: Sequence[str]) -> str:
    """Return names for one line, at most `LISTED`, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _shown(what: str, value: float) -> str:
    if what in SHARES:
        return f"{100 * value:.3g} %"
    return f"{int(value)}" if float(value).is_integer() else f"{value:.6g}"
