"""Names of Renate that have no counterpart: importing one says what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from renate_stages.errors import NoCounterpartError


def refuse(module: str, instead: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that refuses these names.

    Args:
        module: The module's name.
        instead: What to do instead, by name.
    """

    def getattribute(name: str) -> Any:
        if name in instead:
            raise NoCounterpartError(f"{module}.{name}", instead[name])
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattribute
