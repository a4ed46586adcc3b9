"""The scenarios of `renate.benchmark.scenarios`, see docs/scenarios.md.

`test_data()` returns the test data of the update, instead of a list for all updates: the state keeps
those of earlier updates.
"""

from renate_stages.scenarios import (
    ClassIncrementalScenario,
    DataIncrementalScenario,
    FeatureSortingScenario,
    HueShiftScenario,
    IIDScenario,
    ImageRotationScenario,
    PermutationScenario,
    Scenario,
    TransformScenario,
)

__all__ = [
    "ClassIncrementalScenario",
    "DataIncrementalScenario",
    "FeatureSortingScenario",
    "HueShiftScenario",
    "IIDScenario",
    "ImageRotationScenario",
    "PermutationScenario",
    "Scenario",
    "TransformScenario",
]
