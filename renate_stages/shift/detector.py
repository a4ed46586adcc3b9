"""The base class of shift detectors: fit on reference rows, score new rows, save and load.

    detector.json           schema, name of the detector, its settings
    detector.safetensors    what `fit` kept of the reference rows

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
    """What one test says of new rows.

    Args:
        test: Name of the detector.
        statistic: As the test defines it; more is more shift.
        p_value: Probability, without any shift, of a statistic at least as large; in [0, 1].
        effect_size: How large the shift is, whatever the number of rows; 0 is none. Its scale is
            the detector's own.
        attribution: Each feature's, or class's, part in it, float64 `(d,)`, >= 0; None where the
            test has none.
        feature_p_values: Of each feature, corrected for their number, float64 `(d,)`; None where
            the test has none.
    """

    test: str
    statistic: float
    p_value: float
    effect_size: float
    attribution: np.ndarray | None = field(default=None, compare=False)
    feature_p_values: np.ndarray | None = field(default=None, compare=False)


@dataclass
class Detector(ABC):
    """Tests whether new rows are drawn like the reference rows it was fitted on.

    A detector is a dataclass whose fields are its settings, in one file, with a line in
    `detectors.DETECTORS`.

        detector = MaximumMeanDiscrepancy(permutations=500).fit(reference)
        if detector.test(new, np.random.default_rng(0)).p_value <= 0.01:
            ...
        detector.save(Path("detector"))
    """

    name: ClassVar[str]
    fitted: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def fit(self, reference: np.ndarray) -> Self:
        """Keep what is needed of the reference rows, `(n, d)`, or labels, `(n,)`.

        Raises:
            UncomparableRowsError: If they are too few, not finite or of another shape.
        """

    @abstractmethod
    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare new rows, `(m, d)`, or labels, `(m,)`, with the reference.

        Args:
            new: Of the reference's kind.
            generator: Source of randomness: equal ones give equal results.

        Raises:
            UnfittedDetectorError: If nothing was fitted.
            UncomparableRowsError: As for `fit`, or if their number of features differs.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def kept(self, name: str) -> np.ndarray:
        """Return an array that `fit` kept.

        Raises:
            UnfittedDetectorError: If nothing was fitted.
        """
        if name not in self.fitted:
            raise UnfittedDetectorError(self.name)
        return self.fitted[name]

    def save(self, folder: Path) -> None:
        """Write the fitted detector; equal ones give equal bytes."""
        from safetensors.numpy import save_file

        with files.whole_directory(folder) as target:
            content = {"detector": self.name, "schema": SCHEMA, "settings": self.settings}
            files.write_json(target / SETTINGS, content)
            arrays = {name: np.ascontiguousarray(array) for name, array in self.fitted.items()}
            save_file(arrays, target / ARRAYS)
            (target / ARRAYS).chmod(0o666 & ~files.umask())  # else readable by its owner alone


def as_rows(given: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Return rows as float64 `(n, d)`.

    Args:
        given: `(n, d)`, or `(n,)` for one feature.
        like: Reference rows that they must have as many features as.

    Raises:
        UncomparableRowsError: If they are too few, not finite or of another shape.
    """
    rows = np.asarray(given, dtype=np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) < LEAST_ROWS or not rows.shape[1]:
        raise UncomparableRowsError(
            f"found rows of shape {np.shape(given)}, expected (n, d) with n >= {LEAST_ROWS}",
            "flatten each example to one row of numbers, and compare more of them",
        )
    if bad := int((~np.isfinite(rows)).any(axis=1).sum()):
        raise UncomparableRowsError(
            f"{bad} of {len(rows)} rows hold a value that is not finite",
            "remove these rows, or replace these values",
        )
    if like is not None and rows.shape[1] != like.shape[1]:
        raise UncomparableRowsError(
            f"new rows have {rows.shape[1]} features, the reference {like.shape[1]}",
            "compute both in the same way",
        )
    return rows


def as_labels(given: np.ndarray) -> np.ndarray:
    """Return class labels as int64 `(n,)`.

    Raises:
        UncomparableRowsError: If they are none, or there are none.
    """
    labels = np.asarray(given)
    if labels.ndim != 1 or labels.dtype.kind not in "iub" or not len(labels):
        raise UncomparableRowsError(
            f"found labels of shape {labels.shape} and type {labels.dtype}, expected whole numbers "
            "(n,), at least one",
            "give one class label for each example",
        )
    return labels.astype(np.int64)
