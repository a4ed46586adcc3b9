"""Syne Tune's methods that learn from earlier searches, fed with what earlier updates found.

Each of them is a plain random search where there is no history.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from syne_tune.optimizer.baselines import RandomSearch
from syne_tune.optimizer.scheduler import TrialSuggestion
from syne_tune.optimizer.schedulers.searchers.utils import make_hyperparameter_ranges
from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler
from syne_tune.optimizer.schedulers.transfer_learning.bounding_box import BoundingBox
from syne_tune.optimizer.schedulers.transfer_learning.quantile_based import (
    quantile_based_searcher,
)
from syne_tune.optimizer.schedulers.transfer_learning.transfer_learning_task_evaluation import (
    TransferLearningTaskEvaluations,
)
from syne_tune.optimizer.schedulers.transfer_learning.zero_shot import ZeroShotTransfer

from renate_stages.tuning.experience import Experience, PastTrial

Points = list[dict[str, Any]]
Evaluations = dict[str, TransferLearningTaskEvaluations]


class ZeroShot(ZeroShotTransfer):
    """Configurations that together do best on earlier updates (Wistuba et al., ICDM 2015).

    Syne Tune's class never asks for the order it computes, and draws at random.
    """

    def suggest(self) -> TrialSuggestion | None:
        config = self.get_config()
        if config is None:
            return super().suggest()
        cast = {name: self.config_space[name].cast(value) for name, value in config.items()}
        return TrialSuggestion.start_suggestion(cast)


class QuantileSearcher(quantile_based_searcher.QuantileBasedSurrogateSearcher):
    """Thompson sampling from a model of earlier updates (Salinas et al., ICML 2020).

    With few earlier trials its estimate of noise may be 0: a candidate is suggested once only.
    """

    def suggest(self, **kwargs: Any) -> dict[str, Any] | None:
        samples = self.random_state.normal(loc=self.mu_pred, scale=self.sigma_pred)
        chosen = int(np.argmin(samples))
        self.mu_pred[chosen] = np.inf
        return dict(self.X_candidates.loc[chosen])


def zero_shot(space: dict[str, Any], past: Experience, common: dict[str, Any]) -> Any:
    """Return zero-shot transfer.

    It wants each configuration on each update: where one was not tried, it gets the value of that
    update's nearest trial.
    """
    updates = past.updates
    points = past.best(len(past.trials))
    table = pd.DataFrame(points)
    evaluations = {
        str(update): _evaluations(space, table, _values_at(space, trials, points), common["metric"])
        for update, trials in updates.items()
    }
    with _silent():
        return ZeroShot(
            config_space=space,
            transfer_learning_evaluations=evaluations,
            sort_transfer_learning_evaluations=False,
            **common,
        )


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
        searcher = QuantileSearcher(
            config_space=space,
            transfer_learning_evaluations=_by_update(space, past, common["metric"], sign),
            random_seed=common["random_seed"],
        )
    return SingleObjectiveScheduler(config_space=space, searcher=searcher, **common)


def _by_update(space: dict[str, Any], past: Experience, metric: str, sign: int = 1) -> Evaluations:
    return {
        str(update): _evaluations(
            space,
            pd.DataFrame([dict(each.point) for each in trials]),
            np.array([sign * each.value for each in trials]),
            metric,
        )
        for update, trials in past.updates.items()
        if len(trials) >= 2  # a single one has no rank
    }


def _evaluations(
    space: dict[str, Any], table: pd.DataFrame, values: np.ndarray, metric: str
) -> TransferLearningTaskEvaluations:
    return TransferLearningTaskEvaluations(
        space, table.copy(), [metric], values.reshape(-1, 1, 1, 1)
    )


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
