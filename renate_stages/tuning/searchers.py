"""Searchers that Syne Tune lacks, or that need mending to be used in parallel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from syne_tune.optimizer.schedulers.median_stopping_rule import MedianStoppingRule
from syne_tune.optimizer.schedulers.searchers.single_objective_searcher import (
    SingleObjectiveBaseSearcher,
)

from renate_stages.tuning.search_space import SearchSpace


class GridSearcher(SingleObjectiveBaseSearcher):
    """All combinations of evenly spread values, in random order; then it has no more.

    Args:
        space: What is searched.
        points: Values of each range that is not a list, >= 1; lists are taken whole.
        random_seed: Gives the order.
    """

    def __init__(self, space: SearchSpace, points: int, random_seed: int) -> None:
        super().__init__(space.syne_tune(), random_seed=random_seed)
        values = [
            map(each.encode, each.grid(each.size if each.is_list else points))
            for each in space.domains.values()
        ]
        grid = [dict(zip(space.domains, each, strict=True)) for each in itertools.product(*values)]
        order = np.random.default_rng(random_seed).permutation(len(grid))
        distinct = {repr(space.complete(grid[index])): grid[index] for index in order}
        self._left = list(distinct.values())

    def suggest(self, **_: Any) -> dict[str, Any] | None:
        return self._left.pop(0) if self._left else None


def bayesian_optimisation(**arguments: Any) -> Any:
    """Return Syne Tune's BoTorch searcher, with each result beside its configuration.

    Syne Tune lists configurations in the order they were suggested and results in the order they
    came, which differ where trials run in parallel or fail.
    """
    from syne_tune.optimizer.schedulers.searchers.botorch.botorch_searcher import BoTorchSearcher

    class OrderedBoTorchSearcher(BoTorchSearcher):
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
    """Syne Tune's median stopping rule, that tells its scheduler of all that happens."""

    def on_trial_add(self, trial: Any) -> None:
        self.scheduler.on_trial_add(trial)

    def on_trial_complete(self, trial: Any, result: dict[str, Any]) -> None:
        self.scheduler.on_trial_complete(trial, result)

    def on_trial_error(self, trial: Any) -> None:
        self.scheduler.on_trial_error(trial)

    def on_trial_remove(self, trial: Any) -> None:
        self.scheduler.on_trial_remove(trial)
