"""The block `data.scenario`: how to cut one dataset into the data of several updates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from renate_stages.params.blocks import Block

ScenarioName = Literal[
    "blurry",
    "class-incremental",
    "data-incremental",
    "domain-incremental",
    "feature-sorting",
    "hue-shift",
    "iid",
    "imbalanced",
    "permutation",
    "recurring-domains",
    "rotation",
    "time-slices",
]
"""The names of `renate_stages.scenarios.SCENARIOS`."""


class ScenarioParams(Block):
    """Which part of the data an update gets; further keys are arguments of the scenario."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]  # pyright: ignore[reportIncompatibleVariableOverride]

    name: ScenarioName = Field(description="the scenario; docs/scenarios.md lists their arguments")
    chunk_id: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="the part, counted from 0; null: number of the update minus 1"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the scenario, apart from its part."""
        return dict(self.__pydantic_extra__ or {})

    def chunk(self, update: int) -> int:
        """Return which part an update gets."""
        return update - 1 if self.chunk_id is None else self.chunk_id

    @property
    def updates(self) -> int | None:
        """Number of parts that the arguments give; None if it depends on the data."""
        given = self.arguments
        if isinstance(given.get("num_tasks"), int):
            return given["num_tasks"]
        for name, more in {"groupings": 0, "degrees": 0, "data_ids": 0, "edges": 1}.items():
            if isinstance(given.get(name), list):
                return len(given[name]) + more
        if isinstance(given.get("domains"), list):
            rounds = given.get("rounds", 2)
            return len(given["domains"]) * rounds if isinstance(rounds, int) else None
        return None
