"""The classifier two-sample test (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests",
ICLR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from renate_stages.shift.detector import Detector, ShiftResult, as_rows


@dataclass
class ClassifierTwoSample(Detector):
    """Trains a classifier to separate new rows from old ones, and tests its accuracy.

    A logistic regression on standardised features is trained on half of the rows, with equally many
    old and new ones. Without shift, its number of correct predictions on the other half is
    Binomial(rows, 1/2) (section 3.1). The test detects shifts of means and of linear combinations of
    features, but not changes of spread.

    Effect size: accuracy above chance, 2 · accuracy - 1, in [-1, 1]. Attribution: the absolute
    coefficient of each standardised feature.

    Args:
        regularisation: Strength of the regularisation of coefficients, > 0.
    """

    name: ClassVar[str] = "c2st"
    regularisation: float = 1.0

    def fit(self, reference: np.ndarray) -> Self:
        self.fitted = {"reference": as_rows(reference)}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        from scipy.special import bdtrc
        from sklearn.linear_model import LogisticRegression

        reference = self.kept("reference")
        new = as_rows(new, like=reference)
        count = min(len(reference), len(new))
        samples = [
            sample[generator.permutation(len(sample))[:count]] for sample in (reference, new)
        ]
        rows, is_new = np.concatenate(samples), np.repeat([0, 1], count)
        order = generator.permutation(len(rows))
        learn, ask = order[:count], order[count:]  # `count` rows each
        centre, spread = rows[learn].mean(axis=0), rows[learn].std(axis=0)
        rows = (rows - centre) / np.where(spread > 0, spread, 1)
        if len(np.unique(is_new[learn])) == 1:  # can happen if there are very few rows
            return ShiftResult(self.name, 0.5, 1.0, 0.0)
        classifier = LogisticRegression(C=1 / self.regularisation, max_iter=1000)
        classifier.fit(rows[learn], is_new[learn])
        right = int(np.sum(classifier.predict(rows[ask]) == is_new[ask]))
        p_value = float(bdtrc(right - 1, len(ask), 0.5)) if right else 1.0
        accuracy = right / len(ask)
        attribution = np.abs(classifier.coef_[0])
        return ShiftResult(self.name, accuracy, p_value, 2 * accuracy - 1, attribution)
