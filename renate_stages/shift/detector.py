"""`Detector`: the base class of shift detectors, with fit, test, save and load.

    detector.json           schema, name of the detector, its settings
    detector.safetensors    arrays that `fit` stored

No pickle is written or loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from renate_stages import files
from renate_stages.errors import UncomparableRowsError, UnfittedDetectorError

SCHEMA = 1
SETTINGS, ARRAYS = "detector.json", "detector.safetensors"
LEAST_ROWS = 4


@dataclass(frozen=True)
class ShiftResult:
    """The result of a test on new rows.

    Args:
        test: Name of the detector.
        statistic: The test's statistic; higher means more shift.
        p_value: Probability of a statistic at least as large if there is no shift, in [0, 1].
        effect_size: Size of the shift, independent of the number of rows, on the detector's own
            scale; 0 is no shift.
        attribution: Contribution of each feature or class, float64 `(d,)`, >= 0; None if the test
            does not provide it.
        feature_p_values: P-value of each feature, corrected for their number, float64 `(d,)`; None
            if the test does not provide them.
    """

    test: str
    statistic: float
    p_value: float
    effect_size: float
    attribution: np.ndarray | None = field(default=None, compare=False)
    feature_p_values: np.ndarray | None = field(default=None, compare=False)


@dataclass
class Detector(ABC):
    """Tests whether new rows come from the same distribution as the reference rows.

    A detector is a dataclass whose fields are its settings. To add one, write a file with the class
    and add a line to `detectors.DETECTORS`.

        detector = MaximumMeanDiscrepancy(permutations=500).fit(reference)
        if detector.test(new, np.random.default_rng(0)).p_value <= 0.01:
            ...
        detector.save(Path("detector"))
    """

    name: ClassVar[str]
    fitted: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def fit(self, reference: np.ndarray) -> Self:
        """Store what the test needs of the reference rows, `(n, d)`, or labels, `(n,)`.

        Raises:
            UncomparableRowsError: If there are too few rows, values are not finite, or the shape is
                wrong.
        """

    @abstractmethod
    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare new rows, `(m, d)`, or labels, `(m,)`, with the reference.

        Args:
            new: Rows or labels of the same kind as the reference.
            generator: Source of randomness; equal generators give equal results.

        Raises:
            UnfittedDetectorError: If `fit` was not called.
            UncomparableRowsError: As for `fit`, or if the number of features differs.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The detector's constructor arguments."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def kept(self, name: str) -> np.ndarray:
        """Return an array that `fit` stored.

        Raises:
            UnfittedDetectorError: If `fit` was not called.
        """
        if name not in self.fitted:
            raise UnfittedDetectorError(self.name)
        return self.fitted[name]

    def save(self, folder: Path) -> None:
        """Write the fitted detector; equal detectors give equal bytes."""
        from safetensors.numpy import save_file

        with files.whole_directory(folder) as target:
            content = {"detector": self.name, "schema": SCHEMA, "settings": self.settings}
            files.write_json(target / SETTINGS, content)
            arrays = {name: np.ascontiguousarray(array) for name, array in self.fitted.items()}
            save_file(arrays, target / ARRAYS)
            (target / ARRAYS).chmod(0o666 & ~files.umask())  # otherwise readable only for its owner


def as_rows(
    given: np.ndarray, like: np.ndarray | None = None, *, all_finite: bool = True
) -> np.ndarray:
    """Return rows as float64 `(n, d)`.

    Args:
        given: Rows `(n, d)`, or `(n,)` for one feature.
        like: Reference rows, which must have the same number of features.
        all_finite: Whether to refuse values that are missing (NaN) or infinite.

    Raises:
        UncomparableRowsError: If there are too few rows, the shape is wrong, or values are not
            finite, where that is refused.
    """
    rows = np.asarray(given, dtype=np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) < LEAST_ROWS or not rows.shape[1]:
        raise UncomparableRowsError(
            f"found rows of shape {np.shape(given)}, expected (n, d) with n >= {LEAST_ROWS}",
            "flatten each example to one row of numbers, and compare more examples",
        )
    if all_finite and (bad := int((~np.isfinite(rows)).any(axis=1).sum())):
        raise UncomparableRowsError(
            f"{bad} of {len(rows)} rows contain a value that is not finite",
            "remove these rows or replace these values",
        )
    if like is not None and rows.shape[1] != like.shape[1]:
        raise UncomparableRowsError(
            f"new rows have {rows.shape[1]} features, but the reference has {like.shape[1]}",
            "compute the features of both in the same way",
        )
    return rows


def most_shifted(
    name: str, statistics: np.ndarray, effects: np.ndarray, p_values: np.ndarray
) -> ShiftResult:
    """Return the result of a test that compares feature by feature.

    The p-value is the smallest one. The effect is the largest of the features that have it, and the
    statistic is of the same feature.

    Args:
        name: The detector's name.
        statistics: The statistic of each feature, float64 `(d,)`.
        effects: Its effect, float64 `(d,)`.
        p_values: Its p-value, corrected for the number of features, float64 `(d,)`.
    """
    place = int(np.lexsort((-effects, p_values))[0])
    statistic, p_value = float(statistics[place]), float(p_values[place])
    return ShiftResult(name, statistic, p_value, float(effects[place]), effects, p_values)


def as_labels(given: np.ndarray) -> np.ndarray:
    """Return class labels as int64 `(n,)`.

    Raises:
        UncomparableRowsError: If they are not class labels, or are empty.
    """
    labels = np.asarray(given)
    if labels.ndim != 1 or labels.dtype.kind not in "iub" or not len(labels):
        raise UncomparableRowsError(
            f"found labels of shape {labels.shape} and type {labels.dtype}, expected at least one "
            "whole number, shape (n,)",
            "pass one class label for each example",
        )
    return labels.astype(np.int64)
