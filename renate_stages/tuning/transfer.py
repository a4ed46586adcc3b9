"""Syne Tune's transfer-learning methods, applied to the trials of earlier updates.

Where no update has two trials to compare, `builders` takes random search in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from syne_tune.optimizer.baselines import RandomSearch
from syne_tune.optimizer.schedulers.searchers.random_searcher import sample_random_config
from syne_tune.optimizer.schedulers.searchers.single_objective_searcher import (
    SingleObjectiveBaseSearcher,
)
from syne_tune.optimizer.schedulers.searchers.utils import make_hyperparameter_ranges
from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler
from syne_tune.optimizer.schedulers.transfer_learning.bounding_box import BoundingBox
from syne_tune.optimizer.schedulers.transfer_learning.quantile_based.quantile_based_searcher import (
    QuantileBasedSurrogateSearcher,
    fit_model,
)
from syne_tune.optimizer.schedulers.transfer_learning.transfer_learning_task_evaluation import (
    TransferLearningTaskEvaluations,
)
from xgboost import XGBRegressor

from renate_stages.tuning.experience import Experience, PastTrial

Points = list[dict[str, Any]]
Evaluations = dict[str, TransferLearningTaskEvaluations]
CANDIDATES = 5000


class ZeroShotSearcher(SingleObjectiveBaseSearcher):
    """Earlier configurations that together do best on earlier updates, then random ones.

    Wistuba et al., "Sequential Model-Free Hyperparameter Tuning", ICDM 2015: the next one is that
    with which the best rank so far, averaged over updates, is smallest. Syne Tune's own class
    never asks for the order it computes.

    Args:
        space: Syne Tune's.
        points: Earlier configurations; the first of equals is taken.
        losses: Of each configuration on each update, (updates, points); less is better.
        random_seed: For the random ones.
    """

    def __init__(
        self, space: dict[str, Any], points: Points, losses: np.ndarray, random_seed: int
    ) -> None:
        super().__init__(space, random_seed=random_seed)
        ranks = rankdata(losses, axis=1)
        self._order: list[int] = []
        best = np.full(len(losses), np.inf)
        while len(self._order) < len(points):
            left = [index for index in range(len(points)) if index not in self._order]
            means = np.minimum(best[:, None], ranks[:, left]).mean(axis=0)
            if means.min() == best.mean():  # none adds anything: begin anew with those left
                best = np.full(len(losses), np.inf)
                continue
            self._order.append(left[int(means.argmin())])
            best = np.minimum(best, ranks[:, self._order[-1]])
        self._points = points

    def suggest(self, **_: Any) -> dict[str, Any]:
        if self._order:
            return self._points[self._order.pop(0)]
        return sample_random_config(self.config_space)


class QuantileSearcher(QuantileBasedSurrogateSearcher):
    """Thompson sampling from a model of earlier updates (Salinas et al., ICML 2020).

    Syne Tune's samples 100,000 candidates, which takes longer than a trial, and where few earlier
    trials make its estimate of noise 0, suggests one of them again and again.
    """

    def __init__(self, space: dict[str, Any], evaluations: Evaluations, random_seed: int) -> None:
        SingleObjectiveBaseSearcher.__init__(self, space, random_seed=random_seed)
        self.random_state = np.random.RandomState(random_seed)
        model, _, noise = fit_model(
            config_space=space,
            transfer_learning_evaluations=evaluations,
            normalization="gaussian",
            max_fit_samples=100_000,
            model=XGBRegressor(n_jobs=1),
            random_state=self.random_state,
        )
        self._candidates = [self._sample_random_config() for _ in range(CANDIDATES)]
        self._means = np.ravel(model.predict(pd.DataFrame(self._candidates)))
        self._noise = noise

    def suggest(self, **_: Any) -> dict[str, Any]:
        chosen = int(np.argmin(self.random_state.normal(self._means, self._noise)))
        self._means[chosen] = np.inf
        return self._candidates[chosen]


def zero_shot(space: dict[str, Any], past: Experience, common: dict[str, Any]) -> Any:
    """Return zero-shot transfer.

    It wants each configuration on each update: where one was not tried, it gets the value of that
    update's nearest trial.
    """
    points = past.best(len(past.trials))
    sign = 1 if common["do_minimize"] else -1
    values = [_values_at(space, trials, points) for trials in past.updates.values()]
    searcher = ZeroShotSearcher(space, points, sign * np.array(values), common["random_seed"])
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **common)


def bounding_box(
    space: dict[str, Any], past: Experience, common: dict[str, Any], best_of_update: int = 5
) -> Any:
    """Return random search in the box around the best of each update (Perrone et al., NeurIPS 2019).

    Args:
        space: Syne Tune's.
        past: Trials of earlier updates.
        common: Metric, direction and seed.
        best_of_update: How many of each update the box holds, >= 1; the paper takes one, of many.
    """

    def inside(box: dict[str, Any], metric: str, do_minimize: bool, seed: int) -> Any:
        return RandomSearch(box, [metric], do_minimize, seed)

    with _silent():
        return BoundingBox(
            inside,
            config_space=space,
            transfer_learning_evaluations=_by_update(space, past, common["metric"]),
            num_hyperparameters_per_task=best_of_update,
            **common,
        )


def quantile(space: dict[str, Any], past: Experience, common: dict[str, Any]) -> Any:
    """Return quantile-based transfer; it minimises whatever it is told, so it gets losses."""
    sign = 1 if common["do_minimize"] else -1
    with _silent():
        evaluations = _by_update(space, past, common["metric"], sign)
        searcher = QuantileSearcher(space, evaluations, common["random_seed"])
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **common)


def _by_update(space: dict[str, Any], past: Experience, metric: str, sign: int = 1) -> Evaluations:
    return {
        str(update): TransferLearningTaskEvaluations(
            configuration_space=space,
            hyperparameters=pd.DataFrame([dict(each.point) for each in trials]),
            objectives_names=[metric],
            objectives_evaluations=sign * np.array([[[[each.value]]] for each in trials]),
        )
        for update, trials in past.updates.items()
        if len(trials) >= 2
    }


def _values_at(space: dict[str, Any], trials: list[PastTrial], points: Points) -> np.ndarray:
    """Return an update's value at each point, that of its nearest trial."""
    ranges = make_hyperparameter_ranges(space)
    own = ranges.to_ndarray_matrix([dict(each.point) for each in trials])
    wanted = ranges.to_ndarray_matrix(points)
    distances = np.linalg.norm(wanted[:, None] - own[None], axis=-1)  # (points, trials)
    return np.array([each.value for each in trials])[distances.argmin(axis=1)]


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Syne Tune prints and logs of its own classes from the user."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
