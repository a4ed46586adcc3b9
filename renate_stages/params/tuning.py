"""The block `tuning`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from renate_stages.params.blocks import Block, OptionalSeconds


class TuningParams(Block):
    """The search for hyperparameters; used only if a hyperparameter is a space."""

    scheduler: str = Field(
        default="rush",
        description="a name in `schedulers.SCHEDULERS`, or package.module:Class of a Syne Tune "
        "scheduler",
    )
    scheduler_arguments: dict[str, Any] = Field(
        default={}, description="keyword arguments for the scheduler"
    )
    metric: str | None = Field(
        default=None, min_length=1, description="metric to optimize; none: evaluation.metric"
    )
    mode: Literal["max", "min"] | None = Field(
        default=None, description="whether to maximize or minimize it; none: as in evaluation"
    )
    objective: Literal["union", "new", "weighted"] = Field(
        default="union",
        description="validation data to measure on: of all updates, of the new one, or a mix",
    )
    new_weight: float | None = Field(
        default=None, gt=0, lt=1, description="weight of the new data if objective is weighted"
    )
    max_trials: int | None = Field(
        default=20, ge=1, description="trials; the search ends at the first limit that is reached"
    )
    max_completed: int | None = Field(
        default=None, ge=1, description="trials that were trained to their end"
    )
    max_epochs_total: int | None = Field(
        default=None, ge=1, description="epochs of all trials together"
    )
    max_time: OptionalSeconds = Field(
        default=None, gt=0, description="seconds, or a text such as '30 min'"
    )
    n_workers: int = Field(default=1, ge=1, description="trials that run at the same time")
    processes: Literal["fork", "fresh"] = Field(
        default="fork",
        description="fresh: a new interpreter for each trial, for code that cannot be forked",
    )
    reuse_best: bool = Field(
        default=True,
        description="keep the best trial's model instead of training again, if it trained in full",
    )
    use_history: bool = Field(
        default=True, description="use the results of the searches of past updates"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> TuningParams:
        if (self.objective == "weighted") != (self.new_weight is not None):
            raise ValueError(
                f"objective is {self.objective} and new_weight is {self.new_weight}; set "
                "new_weight if, and only if, objective is weighted"
            )
        limits = ("max_trials", "max_completed", "max_epochs_total", "max_time")
        if all(getattr(self, limit) is None for limit in limits):
            raise ValueError(f"{', '.join(limits)} are all null; set at least one of them")
        return self
