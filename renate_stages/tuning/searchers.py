"""Searchers that are missing in Syne Tune, or that need a fix for parallel trials."""

from __future__ import annotations

import math
import warnings
from random import Random
from typing import Any

import numpy as np
from syne_tune.optimizer.schedulers.median_stopping_rule import MedianStoppingRule
from syne_tune.optimizer.schedulers.searchers.bore import Bore
from syne_tune.optimizer.schedulers.searchers.single_objective_searcher import (
    SingleObjectiveBaseSearcher,
)
from xgboost import XGBClassifier

from renate_stages.params.search_space import SearchSpace

MOST_OF_GRID = 100_000  # maximum number of grid points to try


class GridSearcher(SingleObjectiveBaseSearcher):
    """Suggests all combinations of evenly spread values in random order.

    Args:
        space: The search space.
        points: Number of values for each range, >= 1; of lists all values are used.
        random_seed: Seed of the order.
    """

    def __init__(self, space: SearchSpace, points: int, random_seed: int) -> None:
        super().__init__(space.syne_tune(), random_seed=random_seed)
        self._space, self._tried = space, set()
        self._values = [
            each.grid(each.size if each.is_list else points) for each in space.domains.values()
        ]
        size = math.prod(map(len, self._values))
        self._order = iter(Random(random_seed).sample(range(size), min(size, MOST_OF_GRID)))

    def suggest(self, **_: Any) -> dict[str, Any] | None:
        for index in self._order:
            point = {}
            for (name, domain), values in zip(
                self._space.domains.items(), self._values, strict=True
            ):
                index, place = divmod(index, len(values))
                point[name] = domain.encode(values[place])
            tried = repr(self._space.complete(point))
            if tried not in self._tried:
                self._tried.add(tried)
                return point
        return None


class BatchedBore(Bore):
    """Syne Tune's BORE in one thread, which classifies all candidates in one call.

    Classifying 500 candidates one by one took 3 s per suggestion.
    """

    candidates = 500

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model = XGBClassifier(random_state=self.random_state, n_jobs=1)

    def suggest(self, **_: Any) -> dict[str, Any]:
        first = self._next_points_to_evaluate()
        if first is not None:
            return first
        explores = self.random_state.rand() < (self.random_prob or 0)
        if len(self.inputs) < (self.init_random or 0) or explores:
            return self._get_random_config()
        if not self._train_model(self.inputs, self.targets):
            return self._get_random_config()
        candidates = [self._get_random_config() for _ in range(self.candidates)]
        losses = self._loss(self._hp_ranges.to_ndarray_matrix(candidates))
        return candidates[int(np.argmin(losses))]


def bayesian_optimisation(**arguments: Any) -> Any:
    """Return Syne Tune's BoTorch searcher with results matched to their configurations.

    Syne Tune lists configurations in the order of suggestion and results in the order of arrival,
    which differ if trials run in parallel or fail.
    """
    from syne_tune.optimizer.schedulers.searchers.botorch.botorch_searcher import BoTorchSearcher

    class OrderedBoTorchSearcher(BoTorchSearcher):
        def suggest(self) -> dict[str, Any] | None:
            with warnings.catch_warnings(action="ignore"):  # GPyTorch warns about zero noise
                return super().suggest()

        def on_trial_complete(self, trial_id: int, config: dict[str, Any], metric: float) -> None:
            self.trial_configs[int(trial_id)] = config
            super().on_trial_complete(trial_id, config, metric)

        def on_trial_error(self, trial_id: int) -> None:
            self.pending_trials.discard(int(trial_id))

        def objectives(self) -> np.ndarray:
            return np.array([self.trial_observations[trial] for trial in self._finished()])

        def _configs_with_results(self) -> list[dict[str, Any]]:
            return [self.trial_configs[trial] for trial in self._finished()]

        def _finished(self) -> list[int]:
            return sorted(self.trial_observations)

    return OrderedBoTorchSearcher(**arguments)


class MedianStopping(MedianStoppingRule):
    """Syne Tune's median stopping rule, which forwards all events to its scheduler."""

    def on_trial_add(self, trial: Any) -> None:
        self.scheduler.on_trial_add(trial)

    def on_trial_complete(self, trial: Any, result: dict[str, Any]) -> None:
        self.scheduler.on_trial_complete(trial, result)

    def on_trial_error(self, trial: Any) -> None:
        self.scheduler.on_trial_error(trial)

    def on_trial_remove(self, trial: Any) -> None:
        self.scheduler.on_trial_remove(trial)
