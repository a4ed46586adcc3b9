"""Example tables: customers who stay or leave, and patients with diabetes, in three updates each.

The customers are made up. A customer leaves with the probability

    1 / (1 + exp(-z)),  z = -1.8 + 4 [monthly plan] - 0.12 (age - 45) - visits + c + d,

where c depends on the country and d on the update: prices rise in update 3. Iceland is new in update 2.
The patients are those of Efron et al., "Least Angle Regression", 2004, as scikit-learn ships them, a third
in each update.
"""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
import io
import math
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random

CUSTOMERS, PATIENTS = "customers.csv", "patients.csv"
ROWS = 900  # customers in an update
COUNTRIES = {"Norway": -1.5, "Denmark": 0.5, "Sweden": 1.5, "Iceland": 4.0}
PLANS = ("monthly", "yearly", "trial")
DRIFT = {1: 0.0, 2: 0.0, 3: 2.0}
FIRST_DAY = date(2026, 1, 1)


def customer_files(update: int | None) -> dict[str, bytes]:
    """Return `customers.csv` of an update, with 900 rows and the target column `leaves`.

    Args:
        update: 1, 2 or 3; None: the customers of all updates.
    """
    header = ("customer", "seen", "age", "income", "country", "plan", "visits", "member", "leaves")
    numbers = DRIFT if update is None else (update,)
    return {CUSTOMERS: _csv([header, *(row for each in numbers for row in _customers(each))])}


def _customers(update: int) -> Iterable[Sequence[object]]:
    random = Random(update)
    countries = list(COUNTRIES)[: 3 if update == 1 else 4]
    for place in range(ROWS):
        seen = FIRST_DAY + timedelta(days=90 * (update - 1) + place * 90 // ROWS)
        age = 18 + round(60 * random.random() ** 1.5)
        income = round(math.exp(random.gauss(10.3, 0.5)), -2)
        country, plan = random.choice(countries), random.choice(PLANS)
        visits, member = int(random.expovariate(1 / 3)), random.random() < 0.4
        score = -1.8 + 4 * (plan == "monthly") - 0.12 * (age - 45) - visits
        score += COUNTRIES[country] + DRIFT[update]
        leaves = "yes" if random.random() < 1 / (1 + math.exp(-score)) else "no"
        known = "" if random.random() < 0.05 else f"{income:.0f}"
        shown = ("true" if member else "false", leaves)
        yield (f"C{update}-{place:04}", seen, age, known, country, plan, visits, *shown)


def patient_files(update: int | None) -> dict[str, bytes]:
    """Return `patients.csv` of an update, with ten measurements and the target column `progression`.

    Args:
        update: 1, 2 or 3; None: the patients of all updates.
    """
    inputs, targets = (_lines(f"diabetes_{name}.csv.gz") for name in ("data_raw", "target"))
    names = ("age", "sex", "bmi", "bp", "tc", "ldl", "hdl", "tch", "ltg", "glu")
    rows = [
        (f"P{place:03}", *values, f"{float(target):g}")
        for place, (values, (target,)) in enumerate(zip(inputs, targets, strict=True))
        if update is None or place % 3 == update - 1
    ]
    return {PATIENTS: _csv([("patient", *names, "progression"), *rows])}


def _lines(name: str) -> list[list[str]]:
    """Return the rows of one of scikit-learn's files, without importing scikit-learn."""
    scikit_learn = importlib.metadata.distribution("scikit-learn")
    path = Path(str(scikit_learn.locate_file(f"sklearn/datasets/data/{name}")))
    return [line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()
