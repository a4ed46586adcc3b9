"""Find the features whose distribution shifted most.

    metrics/shift.csv   feature, distance, p_value, mean_change, weight   a row for each, bounded

An output of a stage: deterministic and in Git, for `dvc plots`. It is written always, with a header
alone where nothing was compared, so that the plot of `dvc.yaml` never lacks its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.files.csv_file import csv_text
from renate_stages.shift.detector import ShiftResult

MOST = 50  # features in the file: an image has thousands, and Git keeps every update's
COLUMNS = ("feature", "distance", "p_value", "mean_change", "weight")


@dataclass(frozen=True)
class FeatureShift:
    """What is known of one feature.

    Args:
        feature: Its name, or its place in the example.
        distance: Kolmogorov-Smirnov's D, the largest distance between the distribution functions of
            both samples, in [0, 1].
        p_value: Of it, corrected for the number of features (`KolmogorovSmirnov`); in [0, 1].
        mean_change: New mean less that of the reference, in standard deviations of both samples
            together: so it is finite where a feature was constant. It tells up from down, which D
            does not, and is near 0 where only the spread changed.
        weight: Size of its coefficient in the classifier that tells new from old, standardised;
            None where `c2st` was not run.
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
    """Return each feature's part in a shift, the largest distance first, else in their own order.

    Args:
        names: Of the features, d of them.
        reference: `(n, d)`.
        new: `(m, d)`.
        ks: What `KolmogorovSmirnov` says of these rows.
        c2st: What `ClassifierTwoSample` does; None: it was not asked.
    """
    assert ks.attribution is not None and ks.feature_p_values is not None
    changes = mean_changes(reference, new)
    weights = None if c2st is None else c2st.attribution
    equal = ks.attribution.round(12)  # shares of rows: without what rounding adds
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

    That of a feature which never changes is 0.
    """
    change = new.mean(axis=0, dtype=np.float64) - reference.mean(axis=0, dtype=np.float64)
    both = np.concatenate([reference, new]).astype(np.float64)
    spread = both.std(axis=0)
    return np.divide(change, spread, out=np.zeros_like(change), where=spread > 0)


def write_features(path: Path, features: Sequence[FeatureShift]) -> None:
    """Write the `MOST` most shifted of them, with six significant digits."""
    rows = (
        {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in vars(each).items()
        }
        for each in features[:MOST]
    )
    files.write_text(path, csv_text(COLUMNS, rows))
