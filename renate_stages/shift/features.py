"""Find the features whose distribution shifted most.

    metrics/shift.csv   feature, distance, p_value, mean_change, weight   one row per feature, bounded

The file is a stage output in Git for `dvc plots`, and deterministic. It is always written, with only
a header if nothing was compared, because the plot in `dvc.yaml` needs the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.files.csv_file import csv_text
from renate_stages.shift.detector import ShiftResult

MOST = 50  # features in the file; an image has thousands, and Git stores the file of every update
COLUMNS = ("feature", "distance", "p_value", "mean_change", "weight")


@dataclass(frozen=True)
class FeatureShift:
    """The shift of one feature.

    Args:
        feature: The feature's name, or its position in the example.
        distance: Kolmogorov-Smirnov's D, the largest distance between the distribution functions of
            both samples, in [0, 1].
        p_value: P-value of D, corrected for the number of features (`KolmogorovSmirnov`); in [0, 1].
        mean_change: New mean minus reference mean, in standard deviations of both samples together,
            so that it is finite if a feature was constant. Unlike D it has a direction, and it is
            near 0 if only the spread changed.
        weight: Absolute coefficient of the standardised feature in the classifier of new and old
            rows; None if `c2st` was not run.
    """

    feature: str
    distance: float
    p_value: float
    mean_change: float
    weight: float | None = None


def attribute(
    names: Sequence[str],
    reference: np.ndarray,
    new: np.ndarray,
    ks: ShiftResult,
    c2st: ShiftResult | None = None,
) -> list[FeatureShift]:
    """Return the shift of each feature, the largest distance first; ties keep their order.

    Args:
        names: Names of the d features.
        reference: Reference rows `(n, d)`.
        new: New rows `(m, d)`.
        ks: The result of `KolmogorovSmirnov` on these rows.
        c2st: The result of `ClassifierTwoSample`; None if it was not run.
    """
    assert ks.attribution is not None and ks.feature_p_values is not None
    changes = mean_changes(reference, new)
    weights = None if c2st is None else c2st.attribution
    equal = ks.attribution.round(12)  # shares of rows; removes rounding errors
    order: list[int] = np.argsort(-equal, kind="stable").tolist()
    return [
        FeatureShift(
            names[place],
            float(ks.attribution[place]),
            float(ks.feature_p_values[place]),
            float(changes[place]),
            None if weights is None else float(weights[place]),
        )
        for place in order
    ]


def mean_changes(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the change of each feature's mean in standard deviations of both, float64 `(d,)`.

    It is 0 for a constant feature.
    """
    change = new.mean(axis=0, dtype=np.float64) - reference.mean(axis=0, dtype=np.float64)
    both = np.concatenate([reference, new]).astype(np.float64)
    spread = both.std(axis=0)
    return np.divide(change, spread, out=np.zeros_like(change), where=spread > 0)


def write_features(path: Path, features: Sequence[FeatureShift]) -> None:
    """Write the `MOST` most shifted features, with six significant digits."""
    rows = (
        {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in vars(each).items()
        }
        for each in features[:MOST]
    )
    files.write_text(path, csv_text(COLUMNS, rows))
