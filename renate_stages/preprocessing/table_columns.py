"""What is fitted on the columns of a table: figures of numbers, and codes of categories."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from renate_stages.files import typed

COARSE = 0.01  # of a standard deviation
UNKNOWN, MISSING = 0, 1  # codes; that of a category is its place plus 2


@dataclass
class Value:
    """A number that the model gets, and what was fitted on it.

    Args:
        name: Name of the column; of a date, with the part in brackets.
        mean: Mean of the training rows of the first update with a value; None: none has one yet.
        scale: Their standard deviation, or 1 if they are all equal.
        low: Their smallest value.
        high: Their largest value.
    """

    name: str
    mean: float | None = None
    scale: float = 1.0
    low: float | None = None
    high: float | None = None

    def check(self) -> None:
        """Raise `ValueError` if a figure from a file is not valid."""
        figures = (self.mean, self.scale, self.low, self.high)
        if not all(each is None or typed.is_number(each) for each in figures):
            raise ValueError(f"the figures of {self.name!r:.80} are not numbers")
        if self.scale <= 0:
            raise ValueError(f"the scale of {self.name!r:.80} is not above 0")


@dataclass
class Categories:
    """A categorical column, and its categories in the order of their codes.

    Args:
        name: Name of the column.
        names: The categories.
        trained: For "missing" and each category, whether training rows of an update had it.
    """

    name: str
    names: list[str] = field(default_factory=list)
    trained: list[bool] = field(default_factory=lambda: [False])

    def __post_init__(self) -> None:
        self.codes = {name: code for code, name in enumerate(self.names, start=2)}
        self._alike: Counter[str] = Counter()

    def check(self) -> None:
        """Raise `ValueError` if the categories from a file are not valid."""
        fits = len(self.trained) == len(self.names) + 1 and len(self.codes) == len(self.names)
        if not fits or not all(isinstance(name, str) for name in self.names):
            raise ValueError(f"the categories of {self.name!r:.80} are not valid")

    def add(self, name: str) -> None:
        """Add a category with the next code, if it is not there."""
        if name not in self.codes:
            self.codes[name] = len(self.names) + 2
            self.names.append(name)
            self.trained.append(False)

    def has_twin(self, code: int) -> bool:
        """Return whether another category differs from that of a code only in case or spaces."""
        if self._alike.total() != len(self.names):
            self._alike = Counter(map(folded, self.names))
        return self._alike[folded(self.names[code - 2])] > 1


class Moments:
    """Count, mean and deviation of a column, from blocks; NaN is left out.

    Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self) -> None:
        self.count, self.missing, self.mean, self._squares = 0, 0, 0.0, 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, block: np.ndarray) -> None:
        """Add values, float64 `(rows,)`."""
        known = block[~np.isnan(block)]
        self.missing += len(block) - len(known)
        if not len(known):
            return
        mean, distance = float(known.mean()), float(known.mean()) - self.mean
        total = self.count + len(known)
        self._squares += float(((known - mean) ** 2).sum())
        self._squares += distance**2 * self.count * len(known) / total
        self.mean += distance * len(known) / total
        self.count = total
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 if all values are equal."""
        deviation = (self._squares / max(1, self.count)) ** 0.5
        return deviation if deviation > 1e-12 * max(1.0, abs(self.mean)) else 1.0

    @property
    def coarse_step(self) -> float:
        """The distance of neighbouring float32 numbers, if it is large for this column; else 0.

        It is large above a hundredth of the deviation; if all values are equal, above 1, because
        whole numbers may have become equal when they were stored.
        """
        if not self.count:
            return 0.0
        step = float(np.spacing(np.float32(max(abs(self.low), abs(self.high)))))
        return step if step > (COARSE * self.deviation if self.high > self.low else 1) else 0.0


def folded(name: str) -> str:
    """Return a name without its differences in case, spaces and Unicode form.

    A letter with an accent has two forms, one or two characters, which look the same.
    """
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())
