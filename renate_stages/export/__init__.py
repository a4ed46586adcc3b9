"""The deployable folder: writing it, and loading a model from it with `load`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renate_stages.export.deployed import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:  # stages that are quick import this folder without torch
    if name == "load":
        from renate_stages.export.deployed import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
