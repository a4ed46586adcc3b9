"""The block `data`: the data module, splits, and names of labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from renate_stages.params.blocks import Block
from renate_stages.params.data_module import DataModuleParams
from renate_stages.params.scenario import ScenarioParams

Fraction = Annotated[float, Field(ge=0, lt=1)]


class LabelParams(Block):
    """Names of labels; labels in the data may be texts."""

    order: list[str] = Field(
        default=[],
        description="names in the order of the model's outputs; new names are added at the end",
    )
    rename: dict[str, str] = Field(
        default={}, description="what to call labels instead, by their name in the data"
    )

    @model_validator(mode="after")
    def _each_once(self) -> LabelParams:
        for name in self.order:
            if self.order.count(name) > 1:
                raise ValueError(f"order lists {name!r} more than once")
        return self


class DataParams(Block):
    """How `prepare` splits the incoming data if the data module does not, and names of labels."""

    module: DataModuleParams | None = Field(
        default=None, description="a data module in place of data_module_fn, and its arguments"
    )
    max_rejected: Fraction = Field(
        default=0.01,
        description="share of the rows that a data module may leave out because it cannot read them",
    )
    validation_fraction: Fraction = Field(
        default=0.1,
        description="share of the training rows, if the data module has no validation data",
    )
    test_fraction: Fraction = Field(
        default=0.2, description="share of the training rows, if the data module has no test data"
    )
    split: Literal["random", "stratified", "newest", "grouped"] = Field(
        default="random",
        description="which rows become test and validation data: random ones; random ones with the "
        "same share of each label; the newest by split_by; or all rows of some groups by split_by",
    )
    split_by: str | None = Field(
        default=None, description="metadata field for split: a time for newest, a group for grouped"
    )
    arguments: dict[str, Any] = Field(
        default={}, description="keyword arguments for data_module_fn"
    )
    num_workers: int = Field(
        default=0,
        ge=0,
        description="processes that read items of the data module; 0: the main process reads them",
    )
    scenario: ScenarioParams | None = Field(
        default=None, description="to try updates: cut one dataset into the data of several"
    )
    labels: LabelParams = Field(default=LabelParams(), description="names of labels")
    fingerprint: list[str] = Field(
        default=[],
        description="files, such as a vocabulary, that must not change; relative to renate_config.py",
    )
    accepted_fingerprint: str | None = Field(
        default=None, description="digest of a changed fingerprint that old examples still fit"
    )

    @model_validator(mode="after")
    def _names_the_field(self) -> DataParams:
        if (self.split in ("newest", "grouped")) != (self.split_by is not None):
            raise ValueError(
                f"split is {self.split} and split_by is {self.split_by}; name a metadata field in "
                "split_by if, and only if, split is newest or grouped"
            )
        return self
