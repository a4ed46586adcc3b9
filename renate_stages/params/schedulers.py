"""The available schedulers: names, arguments and descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from renate_stages.errors import did_you_mean

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")
HALVING = ("grace_period", "reduction_factor", "brackets")
DENSITY = ("min_bandwidth", "num_candidates", "random_fraction", "top_n_percent")


@dataclass(frozen=True)
class Entry:
    """A scheduler: the names that `scheduler_arguments` may set, and a description."""

    arguments: tuple[str, ...]
    summary: str


SCHEDULERS = {
    "random": Entry((), "random search"),
    "grid": Entry(("points",), "grid search with `points` values per range, in random order"),
    "bo": Entry(
        ("num_init_random",), "Bayesian optimization with a Gaussian process; needs the extra `bo`"
    ),
    "bore": Entry(
        ("gamma", "random_prob", "init_random"), "Bayesian optimization with a classifier"
    ),
    "tpe": Entry(DENSITY, "Bayesian optimization with kernel density estimators"),
    "cqr": Entry(
        ("num_init_random_draws",), "Bayesian optimization with conformal quantile regression"
    ),
    "asha": Entry(HALVING, "random search that stops the worse trials after 1, 3, 9, … epochs"),
    "bohb": Entry((*HALVING, *DENSITY), "tpe with asha's early stopping"),
    "asha-cqr": Entry(HALVING, "cqr with asha's early stopping"),
    "pasha": Entry(
        (*HALVING[:2], "percentile"),
        "asha that raises the maximum epochs only while the ranking of trials changes",
    ),
    "rush": Entry(
        HALVING, "asha that starts with the best of earlier updates; other trials must beat them"
    ),
    "median": Entry(
        ("grace_time", "grace_population", "rank_cutoff"),
        "random search that stops trials that are worse than the median",
    ),
    "zero-shot": Entry((), "the set of configurations that did best on earlier updates, in order"),
    "bounding-box": Entry(
        ("best_of_update",), "random search in the range of the best values of earlier updates"
    ),
    "quantile": Entry((), "Thompson sampling with a model of earlier updates"),
}


def problems_of(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the problems of `tuning.scheduler` and its arguments; does not import schedulers."""
    if name not in SCHEDULERS:
        if _DOTTED.fullmatch(name):
            return []
        known = ", ".join([*SCHEDULERS, "or package.module:Class"])
        hint = did_you_mean(name, SCHEDULERS)
        return [f"tuning.scheduler: unknown scheduler '{name}'{hint} (known: {known})"]
    known_arguments = SCHEDULERS[name].arguments
    return [
        f"tuning.scheduler_arguments.{argument}: {name} has no such argument"
        f"{did_you_mean(argument, known_arguments)} (it has: {', '.join(known_arguments) or 'none'})"
        for argument in arguments
        if argument not in known_arguments
    ]
