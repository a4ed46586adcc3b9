"""History of every metric of every update on every holdout, stored as `evaluations.csv`."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.evaluation import metrics
from renate_stages.evaluation.examined import Examined, ExaminedHoldouts
from renate_stages.files.csv_file import csv_text

Phase = Literal["initial", "before", "after"]
PHASES: tuple[Phase, ...] = get_args(Phase)
MOST_DIGITS = 15
COLUMNS = ("update", "phase", "holdout", "metric", "value", "rows")
ALL = -1  # as a holdout: the rows of all holdouts together
ALL_WRITTEN = "all"


@dataclass(frozen=True)
class Evaluation:
    """One metric of one model on one holdout.

    Args:
        update: Number of the update in which it was measured.
        phase: The measured model: `initial` is the untrained one, `before` the one that the update
            starts from, `after` its result.
        holdout: Number of the update whose test split this is; `ALL` for the rows of all holdouts.
        metric: Name of the metric.
        value: Value of the metric, with 8 significant digits; may be NaN or infinite.
        rows: Number of examples of the holdout.
    """

    update: int
    phase: Phase
    holdout: int
    metric: str
    value: float
    rows: int

    @property
    def place(self) -> tuple[int, int, int, str]:
        """The key of an evaluation, which is unique in a history and defines its order."""
        return self.update, PHASES.index(self.phase), self.holdout, self.metric


@dataclass(frozen=True)
class EvaluationHistory:
    """All evaluations so far, immutable and sorted by update, phase, holdout and metric.

        history = EvaluationHistory.read(path)
        history = history.with_update(3, "after", examine(model, holdouts))
        history.summary(3, "accuracy")["forgetting"]

    Args:
        evaluations: The rows, in any order.

    Raises:
        ValueError: If two evaluations have the same update, phase, holdout and metric.
    """

    evaluations: tuple[Evaluation, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.evaluations, key=lambda evaluation: evaluation.place))
        for one, other in pairwise(ordered):
            if one.place == other.place:
                raise ValueError(f"two evaluations have the same key: {one} and {other}")
        object.__setattr__(self, "evaluations", ordered)

    # -- file -------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path) -> EvaluationHistory:
        """Read a history.

        Raises:
            MalformedFileError: If the file is missing or malformed; names the line.
        """
        evaluations: dict[tuple[int, int, int, str], Evaluation] = {}
        line = 1
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                lines = csv.reader(stream, strict=True)
                header = next(lines, None)
                if header != list(COLUMNS):
                    raise ValueError(f"its header is {header}, expected {list(COLUMNS)}")
                for cells in lines:
                    line = lines.line_num
                    evaluation = _parse(cells)
                    if evaluation.place in evaluations:
                        raise ValueError(
                            "repeats update, phase, holdout and metric of another line"
                        )
                    evaluations[evaluation.place] = evaluation
        except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
            reason = f"line {line}: {error}"
            raise MalformedFileError(path, "a history of evaluations", reason) from error
        return cls(tuple(evaluations.values()))

    def write(self, path: Path) -> None:
        """Write the whole history; equal histories give equal bytes."""
        rows = (
            {**vars(row), "holdout": ALL_WRITTEN} if row.holdout == ALL else vars(row)
            for row in self.evaluations
        )
        files.write_text(path, csv_text(COLUMNS, rows))

    # -- adding evaluations -----------------------------------------------------------------------

    def with_update(
        self, update: int, phase: Phase, results: ExaminedHoldouts
    ) -> EvaluationHistory:
        """Return a history with the evaluations of one more model on all holdouts.

        Existing evaluations of the same update and phase are replaced.

        Args:
            update: Number of the update, >= 0.
            phase: `initial`, `before` or `after`; see `Evaluation`.
            results: The model's results on the holdouts.

        Raises:
            ValueError: If the phase is unknown.
        """
        if phase not in PHASES:
            raise ValueError(f"phase is {phase!r}; expected one of {', '.join(PHASES)}")
        rows = sum(each.rows for each in results.values())
        measured = {**results, ALL: Examined(rows, results.together)} if results else {}
        kept = [row for row in self.evaluations if (row.update, row.phase) != (update, phase)]
        new = [
            Evaluation(update, phase, holdout, metric, _rounded(value), each.rows)
            for holdout, each in measured.items()
            for metric, value in each.metrics.items()
        ]
        return EvaluationHistory((*kept, *new))

    # -- views ------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, sorted."""
        return sorted({row.metric for row in self.evaluations})

    def matrix(self, metric: str, phase: Phase = "after") -> dict[int, dict[int, float]]:
        """Return a metric as a[update][holdout], ascending; by default after each update."""
        values: dict[int, dict[int, float]] = {}
        for row in self.evaluations:
            if (row.metric, row.phase) == (metric, phase) and row.holdout != ALL:
                values.setdefault(row.update, {})[row.holdout] = row.value
        return values

    def examined(self, update: int, phase: Phase = "after") -> ExaminedHoldouts:
        """Return the results of a model on the holdouts, without predictions.

        Releases before this one did not store metrics on the rows of all holdouts; for their
        updates, they are the means over rows.
        """
        results: dict[int, Examined] = {}
        for row in self.evaluations:
            if (row.update, row.phase) == (update, phase):
                metrics = results[row.holdout].metrics if row.holdout in results else {}
                results[row.holdout] = Examined(row.rows, {**metrics, row.metric: row.value})
        together = results.pop(ALL, Examined(0))
        return ExaminedHoldouts.of_means(results, together.metrics)

    def untrained(self, metric: str) -> dict[int, float]:
        """Return a metric of the untrained model as b[holdout]; the latest value counts."""
        by_holdout: dict[int, float] = {}
        for row in self.matrix(metric, "initial").values():
            by_holdout.update(row)
        return dict(sorted(by_holdout.items()))

    def summary(
        self, update: int, metric: str, higher_is_better: bool = True
    ) -> dict[str, float | dict[str, float | None] | None]:
        """Summarize a metric after an update; the formulas are in `evaluation.metrics`.

        Returns:
            `average`, `overall` (on the rows of all holdouts), `worst_holdout`, `forgetting`,
            `backward_transfer`, `forward_transfer`, `prequential` (on the new holdout, of the model
            before it was trained on the new data), and `holdout`: the value on each holdout, by its
            number as a string. All keys are always present; unknown or infinite values are None.

        Raises:
            ValueError: If the metric was not measured after this update.
        """
        measured = self.matrix(metric)
        if update not in measured:
            raise ValueError(f"no evaluation of {metric!r} after update {update}")
        sign: dict[str, Any] = {"higher_is_better": higher_is_better}
        transfer = metrics.forward_transfer(
            self._with_starts(metric), update, self.untrained(metric), **sign
        )
        return {
            "average": known(metrics.average(measured, update)),
            "overall": known(self.examined(update).together[metric]),
            "worst_holdout": known(metrics.worst_holdout(measured, update, **sign)),
            "forgetting": known(metrics.forgetting(measured, update, **sign)),
            "backward_transfer": known(metrics.backward_transfer(measured, update, **sign)),
            "forward_transfer": known(transfer),
            "prequential": known(self._prequential(update, metric)),
            "holdout": {str(i): known(value) for i, value in measured[update].items()},
        }

    def _prequential(self, update: int, metric: str) -> float:
        """Return a metric of the starting model on the new holdout; NaN if it was untrained."""
        starts, untrained = (
            {each: self.matrix(each, phase).get(update, {}).get(update) for each in self.metrics}
            for phase in ("before", "initial")
        )
        value = starts.get(metric)
        return math.nan if value is None or starts == untrained else value

    def _with_starts(self, metric: str) -> dict[int, dict[int, float]]:
        # a[i-1][i]: update i's holdout does not exist yet when update i - 1 is measured. But the
        # same model is measured on it as the model that update i starts from.
        matrix = self.matrix(metric)
        updates = list(matrix)
        starts = self.matrix(metric, "before")
        for previous, update in pairwise(updates):
            if update in starts.get(update, {}):
                matrix[previous].setdefault(update, starts[update][update])
        return matrix


def _parse(cells: list[str]) -> Evaluation:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"it has {len(cells)} cells, expected {len(COLUMNS)}")
    update, phase, holdout, metric, value, rows = cells
    together = holdout == ALL_WRITTEN
    numbers = {"update": update, "holdout": "0" if together else holdout, "rows": rows}
    for name, cell in numbers.items():
        if not (cell.isascii() and cell.isdecimal() and len(cell) <= MOST_DIGITS):
            raise ValueError(f"{name} is {cell!r:.40}, expected a whole number, at least 0")
    if phase not in PHASES:
        raise ValueError(f"phase is {phase!r}, expected one of {', '.join(PHASES)}")
    if not metric:
        raise ValueError("metric is empty, expected its name")
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"value is {value!r}, expected a number") from error
    where = ALL if together else int(holdout)
    return Evaluation(int(update), phase, where, metric, _rounded(number), int(rows))


def _rounded(value: float) -> float:
    # Rounds as in the file, so that writing does not change a history; + 0.0 removes -0.
    return float(f"{float(value):.8g}") + 0.0


def known(value: float) -> float | None:
    """Return a figure for JSON, with 8 significant digits; None if it is not finite."""
    return _rounded(value) if math.isfinite(value) else None
