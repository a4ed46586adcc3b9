"""The block `data.module`: a data module of ours, and how it reads the files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from renate_stages.params.blocks import Block

ModuleName = Literal["arrays", "hugging-face", "images", "shards", "table", "text"]
"""The names of `renate_stages.data.modules.registry.MODULES`."""


class DataModuleParams(Block):
    """The data module that reads `data/incoming`; further keys are its arguments."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]  # pyright: ignore[reportIncompatibleVariableOverride]

    name: ModuleName = Field(
        description="the data module; docs/data.md says which page lists its arguments"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the data module."""
        return dict(self.__pydantic_extra__ or {})
