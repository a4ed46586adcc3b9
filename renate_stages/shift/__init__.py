"""Detect distribution shift between reference rows and new rows."""

from renate_stages.shift.black_box import BlackBoxShift
from renate_stages.shift.categories import CategoricalChiSquare
from renate_stages.shift.classifier import ClassifierTwoSample
from renate_stages.shift.detector import Detector, ShiftResult
from renate_stages.shift.detectors import DETECTORS, load_detector
from renate_stages.shift.kolmogorov_smirnov import KolmogorovSmirnov
from renate_stages.shift.label_shift import LabelChiSquare
from renate_stages.shift.missing import MissingRates
from renate_stages.shift.mmd import MaximumMeanDiscrepancy
from renate_stages.shift.multiple_testing import bonferroni, holm
from renate_stages.shift.stability import stability_index
from renate_stages.shift.words import NewWords

__all__ = [
    "DETECTORS",
    "BlackBoxShift",
    "CategoricalChiSquare",
    "ClassifierTwoSample",
    "Detector",
    "KolmogorovSmirnov",
    "LabelChiSquare",
    "MaximumMeanDiscrepancy",
    "MissingRates",
    "NewWords",
    "ShiftResult",
    "bonferroni",
    "holm",
    "load_detector",
    "stability_index",
]
