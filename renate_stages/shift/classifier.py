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
    """Trains a classifier to tell new rows from old, and asks how often it is right on others.

    A logistic regression on standardised features learns from half of the rows, as many of either
    kind; of the other half it is right by chance alone, Binomial(rows, 1/2), if there is no shift
    (section 3.1). It sees shifts of means and of their mixtures, not of spread.

    Effect size: accuracy over chance, 2 · accuracy - 1, in [-1, 1]. Attribution: the size of each
    standardised feature's coefficient.

    Args:
        regularisation: Of the coefficients, > 0; more is stronger.
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
        learn, ask = order[:count], order[count:]  # both of `count` rows
        centre, spread = rows[learn].mean(axis=0), rows[learn].std(axis=0)
        rows = (rows - centre) / np.where(spread > 0, spread, 1)
        if len(np.unique(is_new[learn])) == 1:  # by chance, of a handful of rows
            return ShiftResult(self.name, 0.5, 1.0, 0.0)
        classifier = LogisticRegression(C=1 / self.regularisation, max_iter=1000)
        classifier.fit(rows[learn], is_new[learn])
        right = int(np.sum(classifier.predict(rows[ask]) == is_new[ask]))
        p_value = float(bdtrc(right - 1, len(ask), 0.5)) if right else 1.0
        accuracy = right / len(ask)
        attribution = np.abs(classifier.coef_[0])
        return ShiftResult(self.name, accuracy, p_value, 2 * accuracy - 1, attribution)
