"""The blocks `retention` and `export`: what stays in the state, and what is deployed."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator

from renate_stages.params.blocks import Block


class RetentionParams(Block):
    """How much data to keep, and for how long. No byte of other rows remains in the state."""

    holdout_rows: int | None = Field(
        default=None, ge=1, description="maximum rows to keep of an update's test split"
    )
    holdout_updates: int | None = Field(
        default=None, ge=1, description="latest updates, with this one, whose holdouts are kept"
    )
    validation_rows: int | None = Field(
        default=None, ge=1, description="maximum rows to keep of an update's validation split"
    )
    validation_updates: int | None = Field(
        default=None,
        ge=1,
        description="latest updates, with this one, whose validation splits are kept",
    )
    memory_updates: int | None = Field(
        default=None, ge=1, description="updates after which a row is removed from the memory"
    )
    never_keep: list[str | int | float | bool] = Field(
        default=[],
        description="sources whose rows are used for this update only and are not stored",
    )


class ExportParams(Block):
    """The content of `export/`, the gate's rules, and who promotes."""

    promote: Any = Field(
        default={}, description="the gate's rules: limits by figure, as in `params.rules`"
    )
    promotion: Literal["manual", "auto"] = Field(
        default="manual",
        description="auto: `next` promotes the update if its committed verdict passed",
    )
    onnx: bool = Field(default=False, description="also write model.onnx; needs the extra onnx")
    files: list[str] = Field(
        default=[],
        description="project files and folders that the model needs, in addition to those that "
        "model_fn and the test transforms read",
    )

    @field_validator("files")
    @classmethod
    def _lie_in_the_project(cls, names: list[str]) -> list[str]:
        for name in names:
            plain = PurePosixPath(name)
            if (
                plain.is_absolute()
                or ".." in plain.parts
                or name.startswith("~")
                or not plain.parts
            ):
                raise ValueError(f"{name!r}: expected a path inside the project, such as vocab.txt")
        return [str(PurePosixPath(name)) for name in names]
