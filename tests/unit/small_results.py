"""Results of models on holdouts, from plain values."""

from __future__ import annotations

from collections.abc import Mapping

from renate_stages.evaluation.examined import Examined, ExaminedHoldouts


def results_of(
    values: Mapping[int, Mapping[str, float]], rows: Mapping[int, int]
) -> ExaminedHoldouts:
    """Return results with given metrics on each holdout; those on all rows are means over rows."""
    return ExaminedHoldouts.of_means({n: Examined(rows[n], v) for n, v in values.items()})
