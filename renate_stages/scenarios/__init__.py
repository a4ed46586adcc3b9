"""Scenarios, which cut one dataset into the data of several updates."""

from renate_stages.scenarios.build import SCENARIOS, build_scenario
from renate_stages.scenarios.data_incremental import (
    DataIncrementalDataModule,
    DataIncrementalScenario,
)
from renate_stages.scenarios.grouped import (
    BlurryScenario,
    ClassIncrementalScenario,
    DomainIncrementalScenario,
    ImbalancedScenario,
    RecurringDomainsScenario,
)
from renate_stages.scenarios.ordered import (
    FeatureSortingScenario,
    HueShiftScenario,
    TimeSliceScenario,
)
from renate_stages.scenarios.scenario import IIDScenario, Scenario
from renate_stages.scenarios.transformed import (
    ImageRotationScenario,
    PermutationScenario,
    TransformScenario,
)

__all__ = [
    "SCENARIOS",
    "BlurryScenario",
    "ClassIncrementalScenario",
    "DataIncrementalDataModule",
    "DataIncrementalScenario",
    "DomainIncrementalScenario",
    "FeatureSortingScenario",
    "HueShiftScenario",
    "IIDScenario",
    "ImageRotationScenario",
    "ImbalancedScenario",
    "PermutationScenario",
    "RecurringDomainsScenario",
    "Scenario",
    "TimeSliceScenario",
    "TransformScenario",
    "build_scenario",
]
