"""False alarms and detections of `should-update` on tables: `make bench NAME=shift ARGS=--rates`.

Each split draws reference and new rows of a table anew: ten numbers whose units differ by nine orders of
magnitude, three categorical columns, 5 % missing values in two columns, and a date that moves on. The date
is among the module's `excluded_features`. The stage's own comparison and the command's own decision run on
them, with the settings that params.yaml has by default. There are no labels, so the decision cannot ask for
the model's performance.

Beside it a plain peer: scipy's Kolmogorov-Smirnov test for each number and chi-squared test for each
categorical column, without missing values, with Bonferroni's correction over the columns, at the same alpha;
it asks for an update if any p-value is significant. It gets the same rows without the date.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import numpy as np
from report import Report
from scipy import stats

from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.shift.comparison import Comparison
from renate_stages.shift.data_metrics import DataMetrics
from renate_stages.shift.decision import decide
from renate_stages.shift.rows import Sample
from renate_stages.state import State
from renate_stages.state.new_data import Splits
from renate_stages.state.state import write_empty

NUMBERS, CATEGORIES = 10, 3
NAMES = ("day", *(f"x{place}" for place in range(NUMBERS)), "city", "product", "channel")
UNITS = 10.0 ** np.arange(-4, NUMBERS - 4)
ROWS, MANY = 1000, 20_000  # of many rows, ours compares `shift.max_rows`, 1,000
REFERENCE_DAYS = 30
PARAMS = Params.parse({"update": {"number": 2, "parent": 1}, "shift": {"features": "raw"}})

Change = Callable[[np.ndarray, np.random.Generator], None]


class Answer(NamedTuple):
    """Whether `should-update` asks for an update, and the number of significant tests."""

    update: bool
    alarms: int


@dataclass(frozen=True)
class Case:
    """A change of the new rows.

    Args:
        name: What changes.
        change: Changes rows `(n, 14)` in place.
        most: Largest share of splits in which an update may be asked for; None: it must be asked for in
            nearly all.
        rows: Number of reference rows and of new rows.
    """

    name: str
    change: Change
    most: float | None = None
    rows: int = ROWS


def nothing(rows: np.ndarray, generator: np.random.Generator) -> None:
    """Change nothing."""


def half_deviation(rows: np.ndarray, generator: np.random.Generator) -> None:
    """Move one number, of the third smallest unit, by half a standard deviation."""
    rows[:, 3] += 0.5 * UNITS[2]


def tenth_deviation(rows: np.ndarray, generator: np.random.Generator) -> None:
    """Move one number by a tenth of a standard deviation, which is too little to matter."""
    rows[:, 3] += 0.1 * UNITS[2]


def new_category(rows: np.ndarray, generator: np.random.Generator) -> None:
    """Give 15 % of the rows a category that the reference has not."""
    rows[generator.random(len(rows)) < 0.15, 1 + NUMBERS] = 99


def missing(rows: np.ndarray, generator: np.random.Generator) -> None:
    """Remove 15 % of the values of a column in which 5 % are missing."""
    rows[generator.random(len(rows)) < 0.15, 1] = np.nan


CASES = (
    Case("i.i.d. rows, a later date", nothing, most=0.01),
    Case("one number + 0.5 sd", half_deviation),
    Case("new category, 15 %", new_category),
    Case("missing values, + 15 %", missing),
    Case(f"one number + 0.1 sd, {MANY} rows", tenth_deviation, most=0.1, rows=MANY),
)


def table(rows: int, first_day: int, generator: np.random.Generator) -> np.ndarray:
    """Return rows of the table: the day, the numbers and the categories, float64 `(rows, 14)`."""
    day = first_day + generator.integers(REFERENCE_DAYS, size=(rows, 1))
    numbers = (5 + generator.normal(size=(rows, NUMBERS))) * UNITS
    numbers[:, 5] = UNITS[5] * generator.lognormal(size=rows)
    numbers[generator.random((rows, 1))[:, 0] < 0.05, 0] = np.nan
    numbers[generator.random((rows, 1))[:, 0] < 0.05, 7] = np.nan
    categories = [
        generator.choice(width, size=rows, p=np.arange(1, width + 1) / (width * (width + 1) / 2))
        for width in (4, 12, 60)
    ]
    return np.concatenate([day, numbers, np.stack(categories, axis=1)], axis=1)


def measure(report: Report, splits: int) -> None:
    """Print how often ours and the peer ask for an update in each case, and compare with aims."""
    alpha = PARAMS.shift.alpha
    print(f"{f'of {splits} splits: asks for an update':<44} ours      95 % interval    plain peer")
    for number, case in enumerate(CASES):
        found: dict[str, list[bool]] = {"ours": [], "peer": [], "test": []}
        for split in range(splits):
            generator = np.random.default_rng([split, number])
            reference = table(case.rows, 0, generator)
            new = table(case.rows, REFERENCE_DAYS, generator)
            case.change(new, generator)
            asks, alarms = ours(reference, new, split)
            found["ours"].append(asks)
            found["test"].append(alarms > 0)
            found["peer"].append(plain_peer(reference[:, 1:], new[:, 1:], alpha))
        rates = {who: float(np.mean(each)) for who, each in found.items()}
        low, high = interval(sum(found["ours"]), splits)
        print(
            f"{case.name:<44}{rates['ours']:5.2f}   {low:.3f} to {high:.3f}   {rates['peer']:5.2f}"
        )
        for who, each in rates.items():
            report.values[f"{case.name}: {who}"] = [each]
        if case.most is None:
            report.at_least(f"{case.name}: detected", rates["ours"], 0.95)
        else:
            report.at_most(f"{case.name}: asked for an update", rates["ours"], case.most)
        if not number:
            low, high = interval(sum(found["test"]), splits)
            print(
                f"{'  its tests alone, at any effect':<44}{rates['test']:5.2f}   {low:.3f} to {high:.3f}"
            )
            report.at_most("lower end of the interval of alarms of tests", low, alpha)


def ours(reference: np.ndarray, new: np.ndarray, seed: int) -> tuple[bool, int]:
    """Return whether `should-update` asks for an update, and how many tests are significant."""
    found = decided(NAMES, CATEGORIES, reference, new, seed)
    return found.update, found.alarms


def decided(
    names: tuple[str, ...], categories: int, reference: np.ndarray, new: np.ndarray, seed: int
) -> Answer:
    """Return the decision on rows of a table without labels, by the default settings.

    Args:
        names: Names of the columns: a date, which is excluded; numbers; categories.
        categories: Number of categorical columns.
        reference: Earlier rows, float64 `(rows, len(names))`.
        new: New rows, of the same form.
        seed: Seed of the permutations.
    """
    splits = Splits(
        feature_names=names,
        categorical_features=names[-categories:],
        excluded_features=names[:1],
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_empty(folder / "parent")
        generator = np.random.default_rng(seed)
        samples = [
            Sample.draw([stored(folder / name, rows, categories)], PARAMS.shift.max_rows, generator)
            for name, rows in (("reference", reference), ("new", new))
        ]
        comparison = Comparison(
            cast(Any, None), PARAMS, State.open(folder / "parent"), samples[0], samples[1], splits
        )
        figures = comparison.shift(Generators(seed, 2)).figures
    decision = decide(PARAMS, DataMetrics.model_validate({"shift": figures}), None)
    return Answer(decision.update, figures["alarms"])


def stored(folder: Path, rows: np.ndarray, categories: int) -> tuple[ExampleStore, np.ndarray]:
    """Write rows as the examples of a table without labels."""
    inputs = {
        "categorical": rows[:, -categories:].astype(np.int64),
        "numeric": rows[:, :-categories].astype(np.float32),
    }
    with StoreWriter(folder, update=1) as writer:
        writer.append((inputs, np.full(len(rows), -100)))
    return ExampleStore.open(folder), np.arange(len(rows))


def plain_peer(reference: np.ndarray, new: np.ndarray, alpha: float) -> bool:
    """Return whether any of scipy's tests is significant after Bonferroni's correction."""
    p_values = []
    for place in range(reference.shape[1]):
        pair = [each[~np.isnan(each[:, place]), place] for each in (reference, new)]
        if place < NUMBERS:
            p_values.append(cast(Any, stats.ks_2samp(*pair, method="asymp")).pvalue)
            continue
        categories = np.unique(np.concatenate(pair))
        counts = [[int((each == code).sum()) for code in categories] for each in pair]
        p_values.append(cast(Any, stats.chi2_contingency(counts)).pvalue)
    return min(p_values) * len(p_values) <= alpha


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a rate (Clopper and Pearson, 1934)."""
    with warnings.catch_warnings():
        found = stats.binomtest(successes, trials).proportion_ci(method="exact")
    return float(found.low), float(found.high)
