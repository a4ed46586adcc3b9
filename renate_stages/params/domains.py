"""Domains of hyperparameters, such as `{uniform: [0, 1]}` in `params.yaml`."""

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
    "randint": "[low, high], whole numbers, both included",
    "lograndint": "[low, high], whole numbers, 1 <= low, both included",
    "choice": "a list of values",
    "ordinal": "an ordered list of values",
    "finrange": "[low, high, number of values]",
    "logfinrange": "[low, high, number of values], 0 < low",
}
STEPPED = ("quniform", "qrandint")
"""Kinds with the values low, low + step, ..., high, written [low, high, step]."""
MOST_VALUES = 10_000  # in a finrange or logfinrange
DIGITS = 6  # significant digits of a drawn number, so that tuned.yaml contains its exact value


@dataclass(frozen=True)
class Domain:
    """The values that one hyperparameter may take.

    Args:
        kind: A key of `KINDS`.
        values: The list in `params.yaml`: the bounds, which are included, or the values themselves.
    """

    kind: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, content: Any) -> Domain:
        """Parse a space in the notation of `params.yaml`.

        Raises:
            ValueError: If it is not a valid space; the message says what is allowed.
        """
        if not isinstance(content, Mapping) or len(content) != 1:
            raise ValueError(f"expected one space, such as {{uniform: [0, 1]}}, found {content!r}")
        kind, values = next(iter(content.items()))
        if kind in STEPPED:
            kind, values = "finrange", _steps(kind, values)
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
        """Whether the scale is logarithmic."""
        return self.kind.startswith("log")

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers between two bounds."""
        if "finrange" in self.kind:
            return all(isinstance(bound, int) for bound in self.values[:2])
        return "randint" in self.kind

    @property
    def size(self) -> int:
        """The number of values, or 0 if it is infinite."""
        if self.is_list:
            return len(self.values)
        if "finrange" in self.kind:
            return self.values[2]
        return self.values[1] - self.values[0] + 1 if self.is_whole else 0

    def grid(self, most: int) -> list[Any]:
        """Return at most `most` values, evenly spread from the first to the last."""
        count = min(most, self.size or most)
        if self.is_list:
            return [self.values[index] for index in _spread(len(self.values), count)]
        if "finrange" in self.kind:
            return [self._at(index / (self.size - 1)) for index in _spread(self.size, count)]
        return list(dict.fromkeys(self._at(index / max(count - 1, 1)) for index in range(count)))

    def middle(self) -> Any:
        """Return the middle of a range or of an ordered list, or the first value of a choice."""
        if self.is_list:
            return self.values[0 if self.kind == "choice" else (len(self.values) - 1) // 2]
        if "finrange" in self.kind:
            return self._at((self.size - 1) // 2 / (self.size - 1))
        return self._at(0.5)

    def draw(self, generator: Generator) -> Any:
        """Return a random value, uniform on the domain's scale."""
        if not self.size:
            return self._at(generator.uniform())
        if self.is_list or "finrange" in self.kind:
            return self.grid(self.size)[generator.integers(self.size)]
        if self.is_logarithmic:
            return self._at(generator.uniform())
        return int(generator.integers(self.values[0], self.values[1], endpoint=True))

    def contains(self, value: Any) -> bool:
        """Return whether a value, for example of an earlier search, is in this domain."""
        if self.is_list:
            return any(_same(value, each) for each in self.values)
        if not is_number(value) or not self.values[0] <= value <= self.values[1]:
            return False
        if "finrange" in self.kind:
            return any(math.isclose(value, each, rel_tol=1e-6) for each in self.grid(self.size))
        return not self.is_whole or value == round(value)

    def encode(self, value: Any) -> Any:
        """Encode a value for Syne Tune: listed values as JSON text, since they must have one type."""
        return json.dumps(value) if self.is_list else value

    def decode(self, value: Any) -> Any:
        """Decode a value that Syne Tune drew to a plain value of this domain."""
        if self.is_list:
            return json.loads(value)
        if self.is_whole:
            return min(max(round(float(value)), self.values[0]), self.values[1])
        return self._rounded(float(value))

    def syne_tune(self) -> Any:
        """Return the equivalent Syne Tune domain."""
        from syne_tune import config_space

        if self.is_list:
            kind = config_space.Categorical if self.kind == "choice" else config_space.Ordinal
            return kind([self.encode(each) for each in self.values])
        if "finrange" in self.kind:
            low, high, count = self.values
            return config_space.FiniteRange(low, high, count, self.is_logarithmic, self.is_whole)
        return getattr(config_space, self.kind)(*self.values)

    def _at(self, share: float) -> Any:
        """Return the value at a position in [0, 1] between the bounds, on the domain's scale."""
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
    """Convert a Syne Tune domain to the notation of `params.yaml`; return other values unchanged."""
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
        sampler: Any = value.get_sampler()
        whole = isinstance(value, config_space.Integer)
        step = getattr(sampler, "q", None)  # of a quantized domain
        if whole and step == 1:
            sampler, step = sampler.sampler, None
        if step is not None and type(sampler.sampler).__name__ == "_Uniform":
            return {"qrandint" if whole else "quniform": [value.lower, value.upper, step]}
        scale = {"_Uniform": "", "_LogUniform": "log"}.get(type(sampler).__name__)
        if scale is not None:
            return {f"{scale}{'randint' if whole else 'uniform'}": [value.lower, value.upper]}
    return value


def _steps(kind: str, values: Any) -> list[Any]:
    """Return `[low, high, number of values]` for `[low, high, step]`.

    Raises:
        ValueError: If the step does not divide the range.
    """
    if isinstance(values, Sequence) and len(values) == 3 and all(map(is_number, values)):
        low, high, step = values
        count = round((high - low) / step) if step > 0 else 0
        whole = count and all(
            math.isclose(each, round(each / step) * step, rel_tol=1e-9) for each in values[:2]
        )
        if count >= 1 and whole:
            number = float if kind == "quniform" else int
            return [number(low), number(high), count + 1]
    expected = "[low, high, step], where both bounds are multiples of the step"
    raise ValueError(f"{kind} takes {expected}, found {values!r}")


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
        return "each value must be a constant or a list of constants"
    if any(_same(one, other) for i, one in enumerate(values) for other in values[:i]):
        return "a value is listed more than once"
    return None if len(values) >= 2 else "expected at least two values; write a constant instead"


def _problem_of_finrange(kind: str, values: Sequence[Any]) -> str | None:
    count = values[2]
    if not isinstance(count, int) or not 2 <= count <= MOST_VALUES:
        return f"the number of values must be a whole number from 2 to {MOST_VALUES}"
    domain = Domain(kind, tuple(values))
    points = [domain._at(index / (count - 1)) for index in range(count)]
    if domain.is_whole and len(set(points)) < count:
        return (
            f"there are fewer than {count} whole numbers between the bounds; for fractions, write "
            "the bounds with a decimal point"
        )
    return None


def _spread(size: int, count: int) -> list[int]:
    """Return `count` indices in [0, size), evenly spread from the first to the last."""
    return [round(index * (size - 1) / max(count - 1, 1)) for index in range(count)]


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; 1.0 equals 1, but True does not."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
