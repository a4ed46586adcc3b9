"""Label shift of data without labels (Lipton et al., "Detecting and Correcting for Label Shift with
Black Box Predictors", ICML 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from renate_stages.errors import UncomparableRowsError
from renate_stages.shift.detector import Detector, ShiftResult, as_labels
from renate_stages.shift.label_shift import chi_square_p_value, chi_square_parts, class_counts


@dataclass
class BlackBoxShift(Detector):
    """Estimates from a model's predictions alone how much more often each class is in new data.

    If classes change in frequency, but not in appearance, then with C the joint frequencies of
    predicted and true class in reference data, and μ those of predictions in new data,

        w = C⁻¹ μ,   w_y = q(y) / p(y)                                             (section 3.2)

    The test compares the counts of predictions (section 4), by χ²; `fit` takes pairs, `test` the
    predictions. The reference must not be what the model was trained on.

    Effect size: total variation distance between the estimated and the old frequencies of classes,
    in [0, 1]. Attribution: w of each class of the reference, ascending; 1 is no change.

    Args:
        permutations: Of the test of small counts, >= 1.
    """

    name: ClassVar[str] = "bbse"
    permutations: int = 1000

    def fit(self, reference: np.ndarray) -> Self:
        """Keep the model's predictions on reference data and their labels, int `(n, 2)`."""
        pairs = np.asarray(reference)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise UncomparableRowsError(
                f"found pairs of shape {pairs.shape}, expected (n, 2)",
                "give the predicted and the true class of each example, in this order",
            )
        self.fitted = {"predicted": as_labels(pairs[:, 0]), "labels": as_labels(pairs[:, 1])}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare the model's predictions on new data, int `(m,)`; their labels are not needed."""
        predicted, new = self.kept("predicted"), as_labels(new)
        counts = class_counts(predicted, new)
        p_value = chi_square_p_value(counts, self.permutations, generator)
        old, weights = estimated_weights(predicted, self.kept("labels"), new)
        distance = float(np.abs(old * weights - old).sum() / 2)
        return ShiftResult(
            self.name, float(chi_square_parts(counts).sum()), p_value, distance, weights
        )


def estimated_weights(
    predicted: np.ndarray, labels: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the old frequency of each class and q(y) / p(y), both float64 `(K,)`.

    Weights are those of least squares, none below 0, scaled so that the new frequencies sum to 1.

    Args:
        predicted: The model's classes on reference data, int64 `(n,)`.
        labels: The true ones, int64 `(n,)`; the K distinct ones, ascending, are weighted.
        new: The model's classes on new data, int64 `(m,)`.
    """
    classes, told = np.unique(labels), np.unique(np.concatenate([predicted, new]))
    joint = np.zeros((len(told), len(classes)))
    np.add.at(joint, (np.searchsorted(told, predicted), np.searchsorted(classes, labels)), 1)
    joint /= len(labels)
    share = np.bincount(np.searchsorted(told, new), minlength=len(told)) / len(new)
    weights = np.maximum(np.linalg.lstsq(joint, share, rcond=None)[0], 0)
    old = joint.sum(axis=0)
    total = float(old @ weights)
    return old, weights / total if total > 0 else np.ones_like(old)
