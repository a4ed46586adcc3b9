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
FIRST_POINTS = 3, 10  # minimum and maximum of first points; in between, one for each earlier update


@dataclass(frozen=True)
class Request:
    """The arguments for building a scheduler.

    Args:
        space: The search space.
        metric: Name of the objective in trial reports.
        mode: `max` or `min`.
        max_epochs: Maximum epochs of a trial.
        seed: Seed in [0, 2^32).
        past: Trials of earlier updates.
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
        """The points to try first: the best of earlier updates, or the middle of the space."""
        most = min(max(len(self.past.updates), FIRST_POINTS[0]), FIRST_POINTS[1])
        return self.past.best(most) or [self.space.encode(self.space.middle())]


def _common(request: Request) -> dict[str, Any]:
    minimise = request.mode == "min"
    return {"metric": request.metric, "do_minimize": minimise, "random_seed": request.seed}


def _searching(request: Request) -> dict[str, Any]:
    """Return the arguments that every searcher gets."""
    return {
        "config_space": request.space.syne_tune(),
        "points_to_evaluate": request.first,
        "random_seed": request.seed,
    }


def _random(request: Request) -> TrialScheduler:
    minimise = request.mode == "min"
    return RandomSearch(metrics=[request.metric], do_minimize=minimise, **_searching(request))


def _whole(make: str | Callable[..., Any], request: Request) -> TrialScheduler:
    """Return a scheduler that runs all trials to their end."""
    searcher_class: Any = searcher_cls(make) if isinstance(make, str) else make
    searcher = searcher_class(**_searching(request), **request.arguments)
    space = request.space.syne_tune()
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **_common(request))


def _halving(make: Callable[..., Any], searcher: str, request: Request) -> TrialScheduler:
    """Return a scheduler that stops or pauses trials at rungs.

    Args:
        make: The scheduler's class.
        searcher: Syne Tune's name of the searcher, which gets the last value of each trial.
        request: The arguments.
    """
    names = (*HALVING, "percentile")
    own = {name: value for name, value in request.arguments.items() if name in names}
    rest = {name: value for name, value in request.arguments.items() if name not in names}
    multi_fidelity = LastValueMultiFidelitySearcher(
        searcher=searcher, searcher_kwargs=rest, **_searching(request)
    )
    return make(
        config_space=request.space.syne_tune(),
        searcher=multi_fidelity,
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
        return _random(request)  # these methods compare the trials of an update, so they need two
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
