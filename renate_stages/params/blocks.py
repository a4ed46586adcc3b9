"""Base classes and types of the blocks in `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

TIME_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Block(BaseModel):
    """A block of keys; unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def seconds(given: Any) -> Any:
    """Convert a time such as '30 min' to seconds; return other types unchanged."""
    if not isinstance(given, str):
        return given
    number, _, unit = given.strip().partition(" ")
    try:
        return float(number) * TIME_UNITS[unit.strip() or "s"]
    except (ValueError, KeyError) as error:
        units = ", ".join(TIME_UNITS)
        raise ValueError(
            f"expected seconds, or a number and one of {units}, such as '30 min', found {given!r}"
        ) from error


Seconds = Annotated[float, BeforeValidator(seconds)]
"""A time in seconds; a text such as '30 min' is converted."""
OptionalSeconds = Annotated[float | None, BeforeValidator(seconds)]
