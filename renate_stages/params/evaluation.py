"""The block `evaluation`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from renate_stages.params.blocks import Block
from renate_stages.tasks import LOWER_IS_BETTER, MEASURED


class EvaluationParams(Block):
    """What to measure on every holdout."""

    metric: str = Field(
        default="accuracy",
        min_length=1,
        description="the headline metric, which is summarized over holdouts",
    )
    mode: Literal["max", "min"] = Field(
        default="max", description="whether higher or lower values are better"
    )
    batch_size: int = Field(default=256, ge=1, description="examples per forward pass")
    slices: list[str] = Field(
        default=[], description="metadata fields; accuracy is reported for each of their values"
    )
    reference: dict[int, float] = Field(
        default={},
        description="headline metric by holdout of a model trained on all data at once",
    )

    @field_validator("reference", mode="before")
    @classmethod
    def _keys_of_json(cls, reference: Any) -> Any:
        """Accept holdout numbers as text, as they are in JSON, which is passed to other processes."""
        if not isinstance(reference, dict):
            return reference
        numbers = {k: int(k) for k in reference if isinstance(k, str) and k.isdecimal()}
        return {numbers.get(key, key): value for key, value in reference.items()}

    @property
    def lower_is_better(self) -> set[str]:
        """Names of the metrics for which lower values are better."""
        return {*LOWER_IS_BETTER} | ({self.metric} if self.mode == "min" else set())

    @model_validator(mode="before")
    @classmethod
    def _has_the_known_mode(cls, given: Any) -> Any:
        """Set the mode of a metric of ours, and refuse the wrong one: it would invert verdicts."""
        metric = given.get("metric", "accuracy") if isinstance(given, dict) else None
        if metric not in (*LOWER_IS_BETTER, *(name for some in MEASURED.values() for name in some)):
            return given
        known = "min" if metric in LOWER_IS_BETTER else "max"
        mode = given.get("mode", known)
        if mode not in ("min", "max"):
            return given
        if mode != known:
            better = "lower" if known == "min" else "higher"
            raise ValueError(f"mode is {mode}, but a {better} {metric} is better: set {known}")
        return {**given, "mode": known}
