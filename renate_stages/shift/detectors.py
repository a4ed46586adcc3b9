"""Registry of detectors by name, and loading of saved detectors."""

from __future__ import annotations

from pathlib import Path

from renate_stages import files
from renate_stages.errors import MalformedFileError, UnknownDetectorError
from renate_stages.shift.black_box import BlackBoxShift
from renate_stages.shift.categories import CategoricalChiSquare
from renate_stages.shift.classifier import ClassifierTwoSample
from renate_stages.shift.detector import ARRAYS, SCHEMA, SETTINGS, Detector
from renate_stages.shift.kolmogorov_smirnov import KolmogorovSmirnov
from renate_stages.shift.label_shift import LabelChiSquare
from renate_stages.shift.missing import MissingRates
from renate_stages.shift.mmd import MaximumMeanDiscrepancy
from renate_stages.shift.words import NewWords

DETECTORS: dict[str, type[Detector]] = {
    detector.name: detector
    for detector in (
        MaximumMeanDiscrepancy,
        KolmogorovSmirnov,
        ClassifierTwoSample,
        CategoricalChiSquare,
        MissingRates,
        NewWords,
        LabelChiSquare,
        BlackBoxShift,
    )
}


def load_detector(folder: Path) -> Detector:
    """Load a detector that `save` wrote, without running any code from its files.

    Raises:
        MalformedFileError: If a file is missing, damaged or of a later version.
        UnknownDetectorError: If there is no detector of this name.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    content = files.read_json(folder / SETTINGS)
    if not (isinstance(content, dict) and content.get("schema") == SCHEMA):
        reason = f"expected schema {SCHEMA}"
        raise MalformedFileError(folder / SETTINGS, "a shift detector", reason)
    name = str(content.get("detector"))
    if name not in DETECTORS:
        raise UnknownDetectorError(name, DETECTORS)
    try:
        detector = DETECTORS[name](**content["settings"])
        detector.fitted = load_file(folder / ARRAYS)
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise MalformedFileError(folder, "a shift detector", str(error)) from error
    return detector
