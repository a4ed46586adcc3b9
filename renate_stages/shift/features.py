"""Find the features whose distribution shifted most.

    metrics/shift.csv   feature, distance, p_value, ...   one row per feature, bounded (`COLUMNS`)

The file is a stage output in Git for `dvc plots`, and deterministic. It is always written, with only
a header if nothing was compared, because the plot in `dvc.yaml` needs the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.files.csv_file import csv_text
from renate_stages.shift.compared_rows import ComparedRows
from renate_stages.shift.detector import ShiftResult
from renate_stages.shift.stability import stability_index

MOST = 50  # features in the file; an image has thousands, and Git stores the file of every update
COLUMNS = (
    *("feature", "distance", "p_value", "mean_change", "weight"),
    *("psi", "missing_change", "missing_p_value", "kind"),
)
COLUMN_TESTS = ("ks", "chi2", "missing")  # tests that compare features one by one


@dataclass(frozen=True)
class FeatureShift:
    """The shift of one feature.

    Args:
        feature: The feature's name, or its position in the example.
        distance: Distance between both samples, in [0, 1]. Of numbers, Kolmogorov-Smirnov's D, the
            largest distance between the distribution functions; of categories, the total variation.
        p_value: P-value of the distance, corrected for the number of features of this kind
            (`KolmogorovSmirnov`, `CategoricalChiSquare`); in [0, 1].
        mean_change: New mean minus reference mean, in standard deviations of both samples together,
            so that it is finite if a feature was constant. Unlike D it has a direction, and it is
            near 0 if only the spread changed. None for categories.
        weight: Absolute coefficient of the standardised feature in the classifier of new and old
            rows; of categories, the largest one. None if `c2st` was not run, or without the feature.
        psi: Population stability index (`stability.stability_index`), >= 0; None if there are so many
            features that it was not computed.
        missing_change: Share of missing values in the new rows minus that in the reference.
        missing_p_value: P-value of this change, corrected for the number of features
            (`MissingRates`); 1 if nothing is missing.
        kind: `numeric` or `categorical`.
    """

    feature: str
    distance: float
    p_value: float
    mean_change: float | None
    weight: float | None = None
    psi: float | None = None
    missing_change: float = 0.0
    missing_p_value: float = 1.0
    kind: str = "numeric"

    @property
    def smallest_p_value(self) -> float:
        """The smaller one of the p-values of the distance and of missing values."""
        return min(self.p_value, self.missing_p_value)

    def effect_at(self, level: float) -> tuple[float, float]:
        """Return the largest effect that is significant at a level, with its p-value.

        Effects are the distance and the change of missing values. If none is significant, it is the one
        with the smallest p-value.
        """
        both = (self.distance, self.p_value), (abs(self.missing_change), self.missing_p_value)
        significant = [each for each in both if each[1] <= level]
        return max(significant) if significant else min(both, key=lambda each: each[1])


def attribute(
    rows: ComparedRows, results: Mapping[str, ShiftResult], alpha: float = 0.01, named: int = 0
) -> list[FeatureShift]:
    """Return the shift of each feature: the significant ones first, then by the size of the effect.

    Ties keep their order.

    Args:
        rows: The features that were compared.
        results: Results of tests by name: `ks`, `chi2` and `missing`, each if there is something that it
            compares; `c2st` if it was run.
        alpha: Level at which a feature is significant.
        named: Number of features, in their order, that get a PSI in addition to the `MOST` first.
    """
    width = len(rows.names)
    distances, p_values, missing_p_values = np.zeros(width), np.ones(width), np.ones(width)
    for test, found in (("ks", p_values), ("chi2", p_values), ("missing", missing_p_values)):
        if test in results:
            kind, result = rows.of_kind(test), results[test]
            assert result.attribution is not None and result.feature_p_values is not None
            found[kind] = result.feature_p_values
            if test != "missing":
                distances[kind] = result.attribution
    gaps = np.isnan(rows.new).mean(axis=0) - np.isnan(rows.reference).mean(axis=0)
    effects = np.maximum(distances, np.abs(gaps)).round(12)  # removes rounding errors
    smallest = np.minimum(p_values, missing_p_values)
    order: list[int] = np.lexsort((-effects, smallest > alpha)).tolist()
    changes, weights = mean_changes(rows.reference, rows.new), _weights(rows, results.get("c2st"))
    with_index = {*order[:MOST], *range(min(named, width))}
    found = []
    for place in order:
        is_categorical = bool(rows.is_categorical[place])
        pair = rows.reference[:, place], rows.new[:, place]
        found.append(
            FeatureShift(
                rows.names[place],
                float(distances[place]),
                float(p_values[place]),
                None if is_categorical else float(changes[place]),
                weights.get(place),
                stability_index(*pair, categorical=is_categorical) if place in with_index else None,
                float(gaps[place]),
                float(missing_p_values[place]),
                "categorical" if is_categorical else "numeric",
            )
        )
    return found


def _weights(rows: ComparedRows, c2st: ShiftResult | None) -> dict[int, float]:
    """Return the largest coefficient of each feature in the classifier, by its place."""
    weights: dict[int, float] = {}
    if c2st is not None and c2st.attribution is not None:
        for place, weight in zip(rows.owners.tolist(), c2st.attribution.tolist(), strict=True):
            weights[place] = max(weight, weights.get(place, 0.0))
    return weights


def mean_changes(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the change of each feature's mean in standard deviations of both, float64 `(d,)`.

    It is 0 for a constant feature. Values that are not finite are left out.
    """
    both = np.concatenate([reference, new]).astype(np.float64)
    known = np.isfinite(both)
    values, n = np.where(known, both, 0), len(reference)
    centre = values.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    deviations = np.where(known, both, centre) - centre
    old, other = known[:n].sum(axis=0), known[n:].sum(axis=0)
    change = deviations[n:].sum(axis=0) / np.maximum(other, 1)
    change -= deviations[:n].sum(axis=0) / np.maximum(old, 1)
    change[(old == 0) | (other == 0)] = 0
    spread = np.sqrt((deviations**2).sum(axis=0) / np.maximum(old + other, 1))
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
