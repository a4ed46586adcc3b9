"""Names of scenarios, and how to build one from `data.scenario` in `params.yaml`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from renate_stages.errors import InvalidScenarioError, UnknownScenarioError, did_you_mean
from renate_stages.scenarios.data_incremental import (
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
)

SCENARIOS: dict[str, type[Scenario]] = {
    "blurry": BlurryScenario,
    "class-incremental": ClassIncrementalScenario,
    "data-incremental": DataIncrementalScenario,
    "domain-incremental": DomainIncrementalScenario,
    "feature-sorting": FeatureSortingScenario,
    "hue-shift": HueShiftScenario,
    "iid": IIDScenario,
    "imbalanced": ImbalancedScenario,
    "permutation": PermutationScenario,
    "recurring-domains": RecurringDomainsScenario,
    "rotation": ImageRotationScenario,
    "time-slices": TimeSliceScenario,
}
"""Scenarios by the name for `data.scenario` in `params.yaml`."""


def build_scenario(
    name: str, data_module: Any, chunk_id: int, seed: int, arguments: Mapping[str, Any]
) -> Scenario:
    """Return the scenario with a name of `SCENARIOS`.

    Args:
        name: The name.
        data_module: The data module to cut.
        chunk_id: Which part to return.
        seed: Seed of random choices, unless `arguments` has one.
        arguments: Other arguments of the scenario's class.

    Raises:
        UnknownScenarioError: If there is no such name.
        InvalidScenarioError: If the class has no such argument, or needs another one.
    """
    if name not in SCENARIOS:
        raise UnknownScenarioError(name, SCENARIOS)
    scenario = SCENARIOS[name]
    known = arguments_of(scenario)
    own = {**arguments, "chunk_id": chunk_id, "seed": arguments.get("seed", seed)}
    for argument in arguments:
        if argument not in known or argument in ("data_module", "chunk_id"):
            names = ", ".join(each for each in known if each not in ("data_module", "chunk_id"))
            problem = f"no argument '{argument}'{did_you_mean(argument, known)}"
            raise InvalidScenarioError(name, problem, f"use these: {names}")
    for argument, parameter in known.items():
        missing = argument not in own and argument != "data_module"
        if missing and parameter.default is inspect.Parameter.empty:
            cure = f"set data.scenario.{argument} in params.yaml"
            raise InvalidScenarioError(name, f"it needs '{argument}'", cure)
    return scenario(data_module, **own)


def arguments_of(scenario: type[Scenario]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a scenario; `**` stands for those of its base class."""
    found: dict[str, inspect.Parameter] = {}
    for base in scenario.__mro__:
        if "__init__" in vars(base):
            own = list(inspect.signature(base.__init__).parameters.values())[1:]
            found |= {each.name: each for each in own if each.name not in found}
            if not any(each.kind is each.VAR_KEYWORD for each in own):
                break
    return {name: each for name, each in found.items() if each.kind is not each.VAR_KEYWORD}
