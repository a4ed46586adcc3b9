"""The blocks `shift` and `should_update` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from renate_stages.params.blocks import Block

Effect = Annotated[float, Field(ge=0, le=1)]


class ShiftParams(Block):
    """How `prepare` tests whether the new data has the same distribution as the parent's."""

    enabled: bool = True
    tests: list[Literal["mmd", "ks", "c2st", "chi2", "missing", "words", "label_chi2", "bbse"]] = (
        Field(
            default=["mmd", "ks", "chi2", "missing", "words", "label_chi2"],
            min_length=1,
            description="see docs/shift.md",
        )
    )
    features: Literal["auto", "raw", "model", "feature_fn"] = Field(
        default="auto",
        description="features to compare; auto: feature_fn, model or raw, the first available",
    )
    exclude: list[str] = Field(
        default=[],
        description="columns to leave out, in addition to excluded_features of the data module",
    )
    thresholds: dict[str, Effect] = Field(
        default={},
        description="smallest effect that counts, for columns that should_update judges one by one",
    )
    reference: Literal["holdouts", "last", "memory", "both"] = Field(
        default="holdouts",
        description="the parent's examples to compare with; last: only those of its own update",
    )
    alpha: float = Field(
        default=0.01, gt=0, lt=1, description="probability of a false alarm in all tests together"
    )
    max_rows: int = Field(default=1000, ge=4, description="rows sampled from each side")
    permutations: int = Field(
        default=1000, ge=1, description="permutations of each permutation test"
    )


class ShouldUpdateParams(Block):
    """The rules of `should-update`. A rule that is null or false is off."""

    when: Literal["any", "all"] = Field(
        default="any",
        description="any: one rule is enough; all: each rule must ask, but new_labels counts only if it is the only one",
    )
    new_labels: bool = Field(
        default=True,
        description="fires if training or test rows have labels that the parent has not seen",
    )
    shift: bool | Literal["always"] = Field(
        default=True,
        description="fires if a shift is significant and large, unless the model is known to do as "
        "well on the new data; always: even then",
    )
    min_effect: Effect = Field(
        default=0.1, description="smallest effect of a shift test that counts"
    )
    performance_drop: float | None = Field(
        default=0.05,
        ge=0,
        description="fires if evaluation.metric of the parent's model is worse by more on new data",
    )
    amount_of_data: int | None = Field(
        default=None, ge=1, description="fires at this number of new training rows"
    )
    age: float | None = Field(
        default=None, gt=0, description="fires if the parent was committed that many days ago"
    )
