"""Detect label shift in unlabelled data (Lipton et al., "Detecting and Correcting for Label Shift with
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
    """Estimates from a model's predictions how much the frequency of each class has changed.

    Assume that classes change in frequency, but not in appearance. With C the joint frequencies of
    predicted and true class in reference data, and μ the frequencies of predictions in new data,

        w = C⁻¹ μ,   w_y = q(y) / p(y)                                             (section 3.2)

    The test compares counts of predictions by χ² (section 4). `fit` takes pairs of predicted and
    true class, `test` takes predictions. The model must not have been trained on the reference.

    Effect size: total variation distance between the estimated and the old class frequencies, in
    [0, 1]. Attribution: w of each class of the reference, ascending; 1 is no change.

    Args:
        permutations: Number of permutations in the test for small counts, >= 1.
    """

    name: ClassVar[str] = "bbse"
    permutations: int = 1000

    def fit(self, reference: np.ndarray) -> Self:
        """Store the model's predictions on reference data with the labels, int `(n, 2)`."""
        pairs = np.asarray(reference)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise UncomparableRowsError(
                f"found pairs of shape {pairs.shape}, expected (n, 2)",
                "pass the predicted and the true class of each example, in this order",
            )
        self.fitted = {"predicted": as_labels(pairs[:, 0]), "labels": as_labels(pairs[:, 1])}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare the model's predictions on new data, int `(m,)`; labels are not needed."""
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

    The weights are the least-squares solution, clipped at 0 and scaled so that the new frequencies
    sum to 1.

    Args:
        predicted: Predicted classes of reference data, int64 `(n,)`.
        labels: True classes of reference data, int64 `(n,)`, with K distinct values.
        new: Predicted classes of new data, int64 `(m,)`.
    """
    classes, predictions = np.unique(labels), np.unique(np.concatenate([predicted, new]))
    joint = np.zeros((len(predictions), len(classes)))
    np.add.at(joint, (np.searchsorted(predictions, predicted), np.searchsorted(classes, labels)), 1)
    joint /= len(labels)
    share = np.bincount(np.searchsorted(predictions, new), minlength=len(predictions)) / len(new)
    weights = np.maximum(np.linalg.lstsq(joint, share, rcond=None)[0], 0)
    old = joint.sum(axis=0)
    total = float(old @ weights)
    return old, weights / total if total > 0 else np.ones_like(old)
