"""The names of schedulers, with their descriptions and arguments."""

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
    """A scheduler: the arguments that `scheduler_arguments` may give, and what it does."""

    arguments: tuple[str, ...]
    summary: str


SCHEDULERS = {
    "random": Entry((), "draws at random"),
    "grid": Entry(("points",), "all combinations of so many values of each range, in random order"),
    "bo": Entry(("num_init_random",), "Bayesian optimisation by a Gaussian process; extra `bo`"),
    "bore": Entry(("gamma", "random_prob", "init_random"), "Bayesian optimisation by a classifier"),
    "tpe": Entry(DENSITY, "Bayesian optimisation by kernel densities"),
    "cqr": Entry(("num_init_random_draws",), "Bayesian optimisation by conformal quantiles"),
    "asha": Entry(HALVING, "random, and trials that fall behind at 1, 3, 9, … epochs end there"),
    "bohb": Entry((*HALVING, *DENSITY), "tpe, with trials ended as by asha"),
    "asha-cqr": Entry(HALVING, "cqr, with trials ended as by asha"),
    "pasha": Entry(
        (*HALVING[:2], "percentile"),
        "asha that lets trials run longer only while that changes who is best",
    ),
    "rush": Entry(HALVING, "asha with the best of earlier updates first, as the hurdle for others"),
    "median": Entry(
        ("grace_time", "grace_population", "rank_cutoff"),
        "random, and trials below the median so far end there",
    ),
    "zero-shot": Entry((), "what together did best on earlier updates, in that order"),
    "bounding-box": Entry(("best_of_update",), "random among the best of earlier updates"),
    "quantile": Entry((), "a model of earlier updates, by Thompson sampling"),
}


def problems_of(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return what of `tuning.scheduler` and `tuning.scheduler_arguments` cannot be; imports none."""
    if name not in SCHEDULERS:
        if _DOTTED.fullmatch(name):
            return []
        known = ", ".join([*SCHEDULERS, "or package.module:Class"])
        hint = did_you_mean(name, SCHEDULERS)
        return [f"tuning.scheduler: unknown scheduler '{name}'{hint} (known: {known})"]
    taken = SCHEDULERS[name].arguments
    return [
        f"tuning.scheduler_arguments.{each}: {name} takes no such argument"
        f"{did_you_mean(each, taken)} (it takes: {', '.join(taken) or 'none'})"
        for each in arguments
        if each not in taken
    ]
