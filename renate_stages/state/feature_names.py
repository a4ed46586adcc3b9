"""Read the names of features, and of their kinds, from a user's data module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from renate_stages.errors import DataModuleError, UserResultError, did_you_mean

SUBSETS = ("categorical_features", "excluded_features")  # of `feature_names`


def names_of_features(module: Any) -> dict[str, tuple[str, ...]]:
    """Return `feature_names` of a data module and its subsets, by the name of the attribute.

    Raises:
        UserResultError: If an attribute is not a list of names.
        DataModuleError: If a name of a subset is not in `feature_names`.
    """
    names = names_in(module, "feature_names")
    subsets = {each: names_in(module, each) for each in SUBSETS}
    for attribute, listed in subsets.items():
        for name in listed:
            if name not in names:
                raise DataModuleError(
                    f"{attribute} contains '{name}', which is not in feature_names"
                    f"{did_you_mean(name, names)}",
                    f"remove the name from {attribute}, or add it to feature_names",
                )
    return {"feature_names": names, **subsets}


def names_in(module: Any, attribute: str) -> tuple[str, ...]:
    """Return the names in an attribute of a data module; empty if it has no such attribute.

    Raises:
        UserResultError: If the attribute is not a list of names.
    """
    found = getattr(module, attribute, ())
    if isinstance(found, str) or not isinstance(found, Iterable):
        what = f"{attribute} of the data module"
        raise UserResultError(what, repr(found)[:80], "a tuple of names")
    return tuple(map(str, found))
