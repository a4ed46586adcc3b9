"""The features that are compared: their rows, names, kinds, and which are left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from renate_stages.errors import InvalidParamsError, UncomparableRowsError, did_you_mean
from renate_stages.shift.encoding import RowEncoding


@dataclass(frozen=True)
class ComparedRows:
    """Rows of features of both samples.

    Args:
        names: Name of each feature.
        reference: Reference rows, float `(n, d)`; NaN is a missing value.
        new: New rows, float `(m, d)`.
        is_categorical: Whether a feature's values are codes of categories, bool `(d,)`.
        is_judged_alone: Whether a feature has a threshold of its own, bool `(d,)`. Tests of whole rows
            leave it out, and its shift does not count in the tests of features.
        scaled: Whether features differ in unit, so that tests of whole rows must scale them.
    """

    names: Sequence[str]
    reference: np.ndarray
    new: np.ndarray
    is_categorical: np.ndarray
    is_judged_alone: np.ndarray
    scaled: bool = True

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        reference: np.ndarray,
        new: np.ndarray,
        *,
        categorical: Collection[str] = (),
        excluded: Collection[str] = (),
        thresholds: Mapping[str, float] | None = None,
        scaled: bool = True,
    ) -> ComparedRows:
        """Return the rows without the excluded features.

        Raises:
            UncomparableRowsError: If no feature is left.
        """
        kept = np.array([name not in excluded for name in names])
        if not kept.any():
            raise UncomparableRowsError(
                "all features are excluded",
                "leave at least one feature out of shift.exclude and excluded_features",
            )
        names = [name for name, keep in zip(names, kept, strict=True) if keep]
        return cls(
            names,
            reference[:, kept],
            new[:, kept],
            np.array([name in categorical for name in names]),
            np.array([name in (thresholds or {}) for name in names]),
            scaled,
        )

    def of_kind(self, test: str) -> np.ndarray:
        """Return which features a test compares one by one, bool `(d,)`."""
        if test == "missing":
            return np.ones(len(self.names), dtype=bool)
        return self.is_categorical if test == "chi2" else ~self.is_categorical

    @cached_property
    def encoded(self) -> tuple[np.ndarray, np.ndarray]:
        """Both samples for tests that compare whole rows, float64, without missing values.

        Raises:
            UncomparableRowsError: If each feature has a threshold of its own.
        """
        if self.is_judged_alone.all():
            raise UncomparableRowsError(
                "each feature has its own threshold", "remove tests of whole rows from shift.tests"
            )
        together = ~self.is_judged_alone
        pair = self.reference[:, together], self.new[:, together]
        if not self.scaled:
            return _imputed(pair[0], pair[0]), _imputed(pair[1], pair[0])
        return self._encoding.encode(pair[0]), self._encoding.encode(pair[1])

    @property
    def owners(self) -> np.ndarray:
        """The feature that each column of `encoded` comes from, int64."""
        places = np.flatnonzero(~self.is_judged_alone)
        return places[self._encoding.owners] if self.scaled else places

    @cached_property
    def _encoding(self) -> RowEncoding:
        together = ~self.is_judged_alone
        return RowEncoding.fit(self.reference[:, together], self.is_categorical[together])


def _imputed(rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return rows whose missing values are the reference's medians; 0 for a feature without values."""
    missing = np.isnan(rows)
    if not missing.any():
        return rows
    filled = rows.copy()
    for place in np.flatnonzero(missing.any(axis=0)).tolist():
        known = reference[~np.isnan(reference[:, place]), place]
        filled[missing[:, place], place] = np.median(known) if len(known) else 0
    return filled


def check_names(block: str, given: Collection[str], names: Collection[str], kind: str) -> None:
    """Check that params.yaml names only features that exist.

    Args:
        block: The parameter that names them, for the error.
        given: The names it gives.
        names: The names that are allowed.
        kind: The features that are compared; only raw ones can be named.

    Raises:
        InvalidParamsError: If a name is unknown, or features are not raw inputs.
    """
    if given and kind != "raw":
        problem = (
            f"{block}: expected no names, because shift.features is {kind}, whose features are not "
            "columns of the data. To fix this: set shift.features to raw, or remove the names"
        )
        raise InvalidParamsError("params.yaml", [problem])
    problems = [
        f"{block}: expected the name of a compared feature, found '{name}'{did_you_mean(name, names)}"
        for name in given
        if name not in names
    ]
    if problems:
        raise InvalidParamsError("params.yaml", problems)
