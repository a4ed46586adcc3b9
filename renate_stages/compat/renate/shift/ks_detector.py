"""`renate.shift.ks_detector`: the Kolmogorov-Smirnov test of each feature of datasets."""

from __future__ import annotations

from renate_stages.compat.renate.shift.detector import ShiftDetectorWithFeatureExtractor
from renate_stages.shift import Detector, KolmogorovSmirnov


class KolmogorovSmirnovCovariateShiftDetector(ShiftDetectorWithFeatureExtractor):
    """Tests for covariate shift with a test of each feature; see `KolmogorovSmirnov`."""

    def _make_test(self) -> Detector:
        return KolmogorovSmirnov("bonferroni")
