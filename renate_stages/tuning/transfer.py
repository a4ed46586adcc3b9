"""Syne Tune's transfer-learning methods, applied to the trials of earlier updates.

If no update has two trials to compare, `builders` uses random search instead.
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
    """Suggests the set of configurations that did best on earlier updates, then random ones.

    Wistuba et al., "Sequential Model-Free Hyperparameter Tuning", ICDM 2015: the next configuration
    is the one that minimizes the best rank so far, averaged over updates. Syne Tune's own class
    computes this order but never uses it.

    Args:
        space: The search space in Syne Tune's form.
        points: Earlier configurations; the first of equally good ones is chosen.
        losses: Loss of each configuration on each update, (updates, points); lower is better.
        random_seed: Seed for the random configurations.
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
            if means.min() == best.mean():  # no point improves the set, so start another set
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

    Syne Tune's class samples 100,000 candidates, which takes longer than a trial. If few earlier
    trials give a noise estimate of 0, it suggests the same candidate again and again.
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
    """Return a scheduler with zero-shot transfer.

    It needs the value of each configuration on each update. If a configuration was not tried, the
    value of that update's nearest trial is used.
    """
    points = past.best(len(past.trials))
    sign = 1 if common["do_minimize"] else -1
    values = [_values_at(space, trials, points) for trials in past.updates.values()]
    searcher = ZeroShotSearcher(space, points, sign * np.array(values), common["random_seed"])
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **common)


def bounding_box(
    space: dict[str, Any], past: Experience, common: dict[str, Any], best_of_update: int = 5
) -> Any:
    """Return random search in the bounding box of the best trials (Perrone et al., NeurIPS 2019).

    Args:
        space: The search space in Syne Tune's form.
        past: Trials of earlier updates.
        common: Metric, direction and seed.
        best_of_update: Number of trials of each update in the box, >= 1. The paper uses one, with
            many earlier tasks.
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
    """Return a scheduler with quantile-based transfer; it always minimizes, so it gets losses."""
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
    """Return the value of an update's nearest trial for each point, (points,)."""
    ranges = make_hyperparameter_ranges(space)
    own = ranges.to_ndarray_matrix([dict(each.point) for each in trials])
    wanted = ranges.to_ndarray_matrix(points)
    distances = np.linalg.norm(wanted[:, None] - own[None], axis=-1)  # (points, trials)
    return np.array([each.value for each in trials])[distances.argmin(axis=1)]


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress the output and log messages of Syne Tune."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
