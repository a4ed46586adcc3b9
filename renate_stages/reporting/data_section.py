"""The report's section on the new data and its shift from the parent's."""

from __future__ import annotations

from renate_stages.reporting.markdown import UNKNOWN, table
from renate_stages.shift.data_metrics import DataMetrics, ShiftFigures, lines_of
from renate_stages.state.data_figures import notes_on_earlier

SHIFTED = 10  # number of columns in the table of shifts


def data_section(data: DataMetrics) -> list[str]:
    """Return the section on the new data and its shift from the parent's."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    rows = [
        (name, split.rows, len(split.classes) or "no labels")
        for name, split in splits.items()
        if split is not None
    ]
    if not rows:
        return []
    lines = ["## Data", "", *table(("split", "examples", "classes"), rows), ""]
    if data.train is not None and (weights := data.train.weights) is not None:
        spread = f"from {weights.least:.6g} to {weights.largest:.6g} (mean {weights.mean:.6g})"
        if weights.least == weights.largest:
            spread = f"that all are {weights.least:.6g}"
        alike = "All figures on validation and test data count every row alike."
        lines += [f"Training rows have weights {spread}. {alike}", ""]
    rejected = {} if data.rejected is None else data.rejected.model_dump()
    notes = [f"new rows: {note}" for note in notes_on_earlier(data.model_dump())]
    notes += lines_of(rejected, data.preprocessing)
    if notes := notes + (data.labels.lines() if data.labels is not None else []):
        lines += [*(f"- {note}" for note in notes), ""]
    if data.shift is not None and data.shift.tests:
        tests = [
            (
                name,
                UNKNOWN if (p := each.corrected_p_value) is None else f"{p:.2g}",
                UNKNOWN if each.effect_size is None else each.effect_size,
            )
            for name, each in data.shift.tests.items()
        ]
        lines += [
            f"{data.shift.alarms} of {len(tests)} tests found a shift from the parent's data.",
            "",
            *table(("test", "corrected p-value", "effect size"), tests),
            "",
        ]
    return lines + ([] if data.shift is None else [*_columns(data.shift), *_estimate(data.shift)])


def _columns(shift: ShiftFigures) -> list[str]:
    """Return a table of the named columns with the largest stability index."""
    if not shift.columns:
        return []
    order = sorted(shift.columns.items(), key=lambda each: -(each[1].psi or 0))
    rows = [
        (
            f"`{name}`",
            *(UNKNOWN if value is None else value for value in (each.psi, each.distance)),
            UNKNOWN if each.p_value is None else f"{each.p_value:.2g}",
            UNKNOWN if each.missing_change is None else f"{each.missing_change:+.1%}",
        )
        for name, each in order[:SHIFTED]
    ]
    head = ("column", "PSI", "distance", "p-value", "missing values")
    shown = "" if len(order) <= SHIFTED else f" ({SHIFTED} of {len(order)})"
    return [
        f"Shift of columns{shown}, the largest stability index first:",
        "",
        *table(head, rows),
        "",
    ]


def _estimate(shift: ShiftFigures) -> list[str]:
    """Return a sentence on the estimated accuracy on rows without labels."""
    estimate = shift.estimated_performance
    if estimate is None or estimate.accuracy is None:
        return []
    error = (
        "" if estimate.error is None else f", off by at most {estimate.error:.3f} on past holdouts"
    )
    sentence = (
        f"{estimate.rows} rows have no labels. The accuracy of the parent's model on them is "
        f"estimated as {estimate.accuracy:.3f} from its confidence{error}."
    )
    return [sentence, ""]
