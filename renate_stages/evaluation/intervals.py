"""Bootstrap intervals of any metric, and of the difference between two models in it.

A metric that is a mean over rows is resampled by its sums (`comparison`). Any other metric, such as
AUROC, F1 or R², is computed again on each resample of rows. As this is slower, there are fewer
resamples, and with more than `MOST_ROWS` rows each has only that many. Its deviations are then
sqrt(m / n) times as large for m of n rows, because the standard error of these metrics shrinks with
the square root of the number of rows (m out of n bootstrap: Bickel, Götze & van Zwet, "Resampling
fewer than n observations", Statistica Sinica 1997).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.evaluation.comparison import difference_interval, interval
from renate_stages.evaluation.examined import Examined

if TYPE_CHECKING:
    from torchmetrics import Metric

    from renate_stages.evaluation.counted_rows import CountedRows

RESAMPLES = 200
MOST_ROWS = 10_000
LEVEL = 0.95

Interval = tuple[float, float]
Rows = Mapping[int, "CountedRows"]  # by holdout


def metric_interval(
    metric: str,
    examined: Mapping[int, Examined],
    generator: np.random.Generator,
    *,
    average: bool,
) -> Interval | None:
    """Return the 95 % interval of a metric; None if no values of rows were kept for it.

    Args:
        metric: Name of the metric, or `loss`.
        examined: The model's results by holdout.
        generator: Draws the resamples, in ascending order of holdouts.
        average: Whether the figure is the mean over holdouts; otherwise it is the metric on the rows
            of all holdouts together.
    """
    if scores := _scores(metric, examined):
        return interval(scores, generator, average=average, level=LEVEL)
    if rows := _rows(metric, examined):
        return _resampled(metric, [rows], generator, average)
    return None


def metric_difference_interval(
    metric: str,
    before: Mapping[int, Examined],
    after: Mapping[int, Examined],
    generator: np.random.Generator,
    *,
    average: bool,
) -> Interval | None:
    """Return the 95 % interval of the new model's metric minus the old one's, on the same resamples.

    Args:
        metric: As in `metric_interval`, and so are `generator` and `average`.
        before: The old model's results by holdout.
        after: The new model's results on the same rows.
        generator: See above.
        average: See above.
    """
    if before.keys() != after.keys():
        return None
    old, new = _scores(metric, before), _scores(metric, after)
    if old and new:
        return difference_interval(old, new, generator, average=average, level=LEVEL)
    rows = [_rows(metric, before), _rows(metric, after)]
    return _resampled(metric, rows, generator, average) if all(rows) else None


def _scores(metric: str, examined: Mapping[int, Examined]) -> dict[int, np.ndarray]:
    """Return the scores of each row by holdout; empty unless all holdouts have them."""
    scores = {n: each.scores[metric] for n, each in examined.items() if metric in each.scores}
    return scores if len(scores) == len(examined) else {}


def _rows(metric: str, examined: Mapping[int, Examined]) -> dict[int, CountedRows]:
    """Return the rows by holdout; empty unless all holdouts have them."""
    rows = {
        n: each.counted
        for n, each in examined.items()
        if each.counted is not None and metric in each.counted.metrics
    }
    return rows if len(rows) == len(examined) else {}


def _resampled(
    metric: str, models: Sequence[Rows], generator: np.random.Generator, average: bool
) -> Interval | None:
    """Return the interval of one model's metric, or of the second minus the first model's."""

    def value(drawn: Mapping[int, np.ndarray]) -> float:
        figures = [_figure(metric, rows, drawn, average) for rows in models]
        return figures[-1] - figures[0] if len(figures) > 1 else figures[0]

    sizes = {n: len(models[0][n]) for n in sorted(models[0])}
    share = min(1.0, MOST_ROWS / sum(sizes.values()))
    draws = {n: max(1, round(share * size)) for n, size in sizes.items()}
    center = value({n: np.arange(size) for n, size in sizes.items()})
    found = np.array(
        [
            value({n: generator.integers(size, size=draws[n]) for n, size in sizes.items()})
            for _ in range(RESAMPLES)
        ]
    )
    if not math.isfinite(center) or np.isfinite(found).sum() < RESAMPLES / 2:
        return None  # some resamples may lack a class
    found = center + (found[np.isfinite(found)] - center) * math.sqrt(share)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _figure(metric: str, rows: Rows, drawn: Mapping[int, np.ndarray], average: bool) -> float:
    taken = [rows[number].taken(drawn[number]) for number in drawn]
    computed = next(iter(rows.values())).metrics[metric]
    if average:
        return float(np.mean([_computed(computed, [each]) for each in taken]))
    return _computed(computed, taken)


def _computed(metric: Metric, parts: Sequence[tuple[Any, Any] | None]) -> float:
    """Return a metric of the entries in all parts; NaN if it is not defined for them."""
    import torch  # here, because `promote` reads verdicts without it

    metric.reset()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # a resample may lack a class
            for part in parts:
                if part is not None:
                    metric.update(*part)
            return float(metric.compute()) if any(part is not None for part in parts) else math.nan
    except Exception:  # noqa: BLE001 -- the metric was computed on all rows; this sample has none
        return math.nan
    finally:
        metric.reset()
