"""`renate.shift.mmd_detectors`: the maximum mean discrepancy of datasets."""

from __future__ import annotations

from torch import nn

from renate_stages.compat.renate.shift.detector import ShiftDetectorWithFeatureExtractor
from renate_stages.shift import Detector, MaximumMeanDiscrepancy


class MMDCovariateShiftDetector(ShiftDetectorWithFeatureExtractor):
    """Tests for covariate shift with the maximum mean discrepancy; see `MaximumMeanDiscrepancy`.

    Args:
        feature_extractor: As in `ShiftDetectorWithFeatureExtractor`.
        num_permutations: Permutations of the test; the score is at most 1 - 1 / (number + 1).
        batch_size: As in `ShiftDetector`.
        num_preprocessing_workers: As in `ShiftDetector`.
        device: As in `ShiftDetector`.
    """

    def __init__(
        self,
        feature_extractor: nn.Module | None = None,
        num_permutations: int = 1000,
        batch_size: int = 32,
        num_preprocessing_workers: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(feature_extractor, batch_size, num_preprocessing_workers, device)
        self._num_permutations = num_permutations

    def _make_test(self) -> Detector:
        return MaximumMeanDiscrepancy(self._num_permutations)
