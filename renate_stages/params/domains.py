"""Domains of hyperparameters as `params.yaml` writes them: `{uniform: [0, 1]}`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from renate_stages.errors import did_you_mean
from renate_stages.files.typed import is_number

if TYPE_CHECKING:
    from numpy.random import Generator

KINDS = {
    "uniform": "[low, high]",
    "loguniform": "[low, high], 0 < low",
    "randint": "[low, high], whole numbers, both possible",
    "lograndint": "[low, high], whole numbers, 1 <= low, both possible",
    "choice": "a list of values",
    "ordinal": "a list of values, in their order",
    "finrange": "[low, high, how many values]",
    "logfinrange": "[low, high, how many values], 0 < low",
}
MOST_VALUES = 10_000  # of a range with a number of them
DIGITS = 6  # significant ones of a drawn number: its text in tuned.yaml is its value


@dataclass(frozen=True)
class Domain:
    """The values that one hyperparameter may take.

    Args:
        kind: A key of `KINDS`.
        values: What `params.yaml` gives for it: bounds, both possible, or the values themselves.
    """

    kind: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, content: Any) -> Domain:
        """Read a space as it is written in `params.yaml`.

        Raises:
            ValueError: If it is none; says what is wrong and what is allowed.
        """
        if not isinstance(content, Mapping) or len(content) != 1:
            raise ValueError(f"expected one space, such as {{uniform: [0, 1]}}, found {content!r}")
        kind, values = next(iter(content.items()))
        if kind not in KINDS:
            hint = did_you_mean(str(kind), KINDS)
            raise ValueError(f"unknown kind of space '{kind}'{hint} (known: {', '.join(KINDS)})")
        problem = _problem_of(kind, values)
        if problem:
            raise ValueError(f"{kind} takes {KINDS[kind]}: {problem}, found {values!r}")
        return cls(kind, tuple(values))

    @property
    def is_list(self) -> bool:
        """Whether the values are listed one by one."""
        return self.kind in ("choice", "ordinal")

    @property
    def is_logarithmic(self) -> bool:
        """Whether equal factors are equal steps."""
        return self.kind.startswith("log")

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers between two bounds."""
        if "finrange" in self.kind:
            return all(isinstance(bound, int) for bound in self.values[:2])
        return "randint" in self.kind

    @property
    def size(self) -> int:
        """The number of values, 0 where there is no end of them."""
        if self.is_list:
            return len(self.values)
        if "finrange" in self.kind:
            return self.values[2]
        return self.values[1] - self.values[0] + 1 if self.is_whole else 0

    def grid(self, most: int) -> list[Any]:
        """Return at most so many values, evenly spread from the first to the last."""
        count = min(most, self.size or most)
        if self.is_list:
            return [self.values[index] for index in _spread(len(self.values), count)]
        if "finrange" in self.kind:
            return [self._at(index / (self.size - 1)) for index in _spread(self.size, count)]
        return list(dict.fromkeys(self._at(index / max(count - 1, 1)) for index in range(count)))

    def middle(self) -> Any:
        """Return the middle of the range, of the listed order, or the first choice."""
        if self.is_list:
            return self.values[0 if self.kind == "choice" else (len(self.values) - 1) // 2]
        if "finrange" in self.kind:
            return self._at((self.size - 1) // 2 / (self.size - 1))
        return self._at(0.5)

    def draw(self, generator: Generator) -> Any:
        """Return a value at random, each as likely as any (on its scale)."""
        if not self.size:
            return self._at(generator.uniform())
        if self.is_list or "finrange" in self.kind:
            return self.grid(self.size)[generator.integers(self.size)]
        if self.is_logarithmic:
            return self._at(generator.uniform())
        return int(generator.integers(self.values[0], self.values[1], endpoint=True))

    def contains(self, value: Any) -> bool:
        """Return whether a value of an earlier search can be one of these."""
        if self.is_list:
            return any(_same(value, each) for each in self.values)
        if not is_number(value) or not self.values[0] <= value <= self.values[1]:
            return False
        if "finrange" in self.kind:
            return any(math.isclose(value, each, rel_tol=1e-6) for each in self.grid(self.size))
        return not self.is_whole or value == round(value)

    def encode(self, value: Any) -> Any:
        """Return a value as Syne Tune gets it: listed ones as text, since it wants one type."""
        return json.dumps(value) if self.is_list else value

    def decode(self, value: Any) -> Any:
        """Return a plain value of this domain from what Syne Tune drew."""
        if self.is_list:
            return json.loads(value)
        if self.is_whole:
            return min(max(round(float(value)), self.values[0]), self.values[1])
        return self._rounded(float(value))

    def syne_tune(self) -> Any:
        """Return it as a domain of Syne Tune."""
        from syne_tune import config_space

        if self.is_list:
            kind = config_space.Categorical if self.kind == "choice" else config_space.Ordinal
            return kind([self.encode(each) for each in self.values])
        if "finrange" in self.kind:
            low, high, count = self.values
            return config_space.FiniteRange(low, high, count, self.is_logarithmic, self.is_whole)
        return getattr(config_space, self.kind)(*self.values)

    def _at(self, share: float) -> Any:
        """Return the value at a share in [0, 1] of the way from the lower bound to the upper."""
        low, high = self.values[:2]
        if self.is_logarithmic:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return self.decode(value)

    def _rounded(self, value: float) -> float:
        low, high = self.values[:2]
        return min(max(float(f"{value:.{DIGITS}g}"), float(low)), float(high))


def as_written(value: Any) -> Any:
    """Return a domain of Syne Tune as `params.yaml` writes it; anything else as it is."""
    if not type(value).__module__.startswith("syne_tune."):
        return value
    from syne_tune import config_space

    if isinstance(value, config_space.Ordinal):
        return {"ordinal": list(value.categories)}
    if isinstance(value, config_space.Categorical):
        return {"choice": list(value.categories)}
    if isinstance(value, config_space.FiniteRange):
        kind = "logfinrange" if value.log_scale else "finrange"
        number = int if value.cast_int else float
        return {kind: [number(value.lower), number(value.upper), len(value)]}
    if isinstance(value, config_space.Integer | config_space.Float):
        sampler = type(value.get_sampler()).__name__
        scale = {"_Uniform": "", "_LogUniform": "log"}.get(sampler)
        if scale is not None:
            kind = "randint" if isinstance(value, config_space.Integer) else "uniform"
            return {f"{scale}{kind}": [value.lower, value.upper]}
    return value


def _problem_of(kind: str, values: Any) -> str | None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return "expected a list"
    if kind in ("choice", "ordinal"):
        return _problem_of_list(values)
    wanted = 3 if "finrange" in kind else 2
    if len(values) != wanted or not all(is_number(each) for each in values):
        return f"expected {wanted} numbers"
    low, high = values[:2]
    if low >= high:
        return "the first number must be smaller than the second"
    if kind.startswith("log") and low <= 0:
        return "the first number must be greater than 0"
    if "randint" in kind and not all(isinstance(each, int) for each in values):
        return "expected whole numbers"
    if "finrange" in kind:
        return _problem_of_finrange(kind, values)
    return None


def _problem_of_list(values: Sequence[Any]) -> str | None:
    if any(isinstance(each, Mapping) for each in values):
        return "a value is a constant or a list of constants"
    if any(_same(one, other) for i, one in enumerate(values) for other in values[:i]):
        return "a value is there twice"
    return None if len(values) >= 2 else "expected two values or more; write a single one itself"


def _problem_of_finrange(kind: str, values: Sequence[Any]) -> str | None:
    count = values[2]
    if not isinstance(count, int) or not 2 <= count <= MOST_VALUES:
        return f"how many must be a whole number from 2 to {MOST_VALUES}"
    domain = Domain(kind, tuple(values))
    points = [domain._at(index / (count - 1)) for index in range(count)]
    if domain.is_whole and len(set(points)) < count:
        return f"between whole bounds are whole values, and not {count} different ones; write 0.0"
    return None


def _spread(size: int, count: int) -> list[int]:
    """Return `count` indices of `size`, evenly spread, the first and the last among them."""
    return [round(index * (size - 1) / max(count - 1, 1)) for index in range(count)]


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are one: True is not 1, but 1.0 is."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
