"""`renate.shift`: detectors of covariate shift, which take datasets."""

from renate_stages.compat.renate.shift.ks_detector import KolmogorovSmirnovCovariateShiftDetector
from renate_stages.compat.renate.shift.mmd_detectors import MMDCovariateShiftDetector

__all__ = ["KolmogorovSmirnovCovariateShiftDetector", "MMDCovariateShiftDetector"]
