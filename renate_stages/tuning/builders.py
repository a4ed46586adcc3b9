"""Build each named scheduler from Syne Tune's classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from syne_tune.optimizer.baselines import RandomSearch
from syne_tune.optimizer.scheduler import TrialScheduler
from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving
from syne_tune.optimizer.schedulers.searchers.last_value_multi_fidelity_searcher import (
    LastValueMultiFidelitySearcher,
)
from syne_tune.optimizer.schedulers.searchers.searcher_factory import searcher_cls
from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler

from renate_stages.params.schedulers import HALVING
from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning.experience import Experience
from renate_stages.tuning.pasha import PASHA
from renate_stages.tuning.rush import RUSH
from renate_stages.tuning.searchers import (
    BatchedBore,
    GridSearcher,
    MedianStopping,
    bayesian_optimisation,
)
from renate_stages.tuning.seeded import RESOURCE

RANDOM = "random_search"
GRID_POINTS = 5
FIRST_POINTS = 3, 10  # of earlier updates, least and most; one of each update in between


@dataclass(frozen=True)
class Request:
    """What a scheduler is made for.

    Args:
        space: What is searched.
        metric: What reports call the objective.
        mode: `max` or `min`.
        max_epochs: Most epochs of a trial.
        seed: In [0, 2^32).
        past: What earlier updates found.
        arguments: Keyword arguments of the scheduler.
    """

    space: SearchSpace
    metric: str
    mode: str
    max_epochs: int
    seed: int
    past: Experience
    arguments: Mapping[str, Any]

    @property
    def first(self) -> list[dict[str, Any]]:
        """The points to try first: the best of earlier updates, or else the middle of the space."""
        most = min(max(len(self.past.updates), FIRST_POINTS[0]), FIRST_POINTS[1])
        return self.past.best(most) or [self.space.encode(self.space.middle())]


def _common(request: Request) -> dict[str, Any]:
    minimise = request.mode == "min"
    return {"metric": request.metric, "do_minimize": minimise, "random_seed": request.seed}


def _searching(request: Request) -> dict[str, Any]:
    """Return what every searcher gets."""
    return {
        "config_space": request.space.syne_tune(),
        "points_to_evaluate": request.first,
        "random_seed": request.seed,
    }


def _random(request: Request) -> TrialScheduler:
    minimise = request.mode == "min"
    return RandomSearch(metrics=[request.metric], do_minimize=minimise, **_searching(request))


def _whole(make: str | Callable[..., Any], request: Request) -> TrialScheduler:
    """Return a scheduler whose trials all run to their end."""
    searcher_class: Any = searcher_cls(make) if isinstance(make, str) else make
    searcher = searcher_class(**_searching(request), **request.arguments)
    space = request.space.syne_tune()
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **_common(request))


def _halving(make: Callable[..., Any], searcher: str, request: Request) -> TrialScheduler:
    """Return a scheduler that ends trials at rungs.

    Args:
        make: The class.
        searcher: Syne Tune's name of what suggests, given the last value of each trial.
        request: What it is for.
    """
    given, names = request.arguments, (*HALVING, "percentile")
    own = {name: value for name, value in given.items() if name in names}
    rest = {name: value for name, value in given.items() if name not in names}
    suggesting = LastValueMultiFidelitySearcher(
        searcher=searcher, searcher_kwargs=rest, **_searching(request)
    )
    return make(
        config_space=request.space.syne_tune(),
        searcher=suggesting,
        time_attr=RESOURCE,
        max_t=request.max_epochs,
        **_common(request),
        **own,
    )


def _rush(request: Request) -> TrialScheduler:
    hurdles = request.first if request.past.trials else []
    return _halving(partial(RUSH, hurdles=hurdles), RANDOM, request)


def _grid(request: Request) -> TrialScheduler:
    points = request.arguments.get("points", GRID_POINTS)
    searcher = GridSearcher(request.space, points, request.seed)
    space = request.space.syne_tune()
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **_common(request))


def _median(request: Request) -> TrialScheduler:
    return MedianStopping(
        _random(request), time_attr=RESOURCE, **_common(request), **request.arguments
    )


def _transfer(method: str, request: Request) -> TrialScheduler:
    if all(len(trials) < 2 for trials in request.past.updates.values()):
        return _random(request)  # a single trial has no rank
    from renate_stages.tuning import transfer

    make = getattr(transfer, method)
    return make(request.space.syne_tune(), request.past, _common(request), **request.arguments)


BUILDERS: dict[str, Callable[[Request], TrialScheduler]] = {
    "random": _random,
    "grid": _grid,
    "bo": partial(_whole, bayesian_optimisation),
    "bore": partial(_whole, BatchedBore),
    "tpe": partial(_whole, "kde"),
    "cqr": partial(_whole, "cqr"),
    "asha": partial(_halving, AsynchronousSuccessiveHalving, RANDOM),
    "bohb": partial(_halving, AsynchronousSuccessiveHalving, "kde"),
    "asha-cqr": partial(_halving, AsynchronousSuccessiveHalving, "cqr"),
    "pasha": partial(_halving, PASHA, RANDOM),
    "rush": _rush,
    "median": _median,
    "zero-shot": partial(_transfer, "zero_shot"),
    "bounding-box": partial(_transfer, "bounding_box"),
    "quantile": partial(_transfer, "quantile"),
}
