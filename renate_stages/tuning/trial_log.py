"""Log the trials of a search as MLflow runs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from renate_stages.tracking import Tracker, TrialRun

if TYPE_CHECKING:
    from renate_stages.tuning.search import SearchResult
    from renate_stages.tuning.trial_folder import TrialFolder

STATUS = {"completed": "FINISHED", "failed": "FAILED"}  # all others: KILLED


class TrialLog:
    """Logs each trial once, when it has ended; a paused trial when the search has ended.

    Args:
        tracker: Tracker of the run under which trials are nested.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._logged: set[int] = set()

    def __call__(self, trials: Sequence[TrialFolder]) -> None:
        """Log trials that have ended and are not logged yet."""
        for trial in trials:
            if trial.status not in ("running", "paused"):
                self._log(trial)

    def finish(self, result: SearchResult) -> None:
        """Log the remaining trials, and tag the best."""
        for trial in result.trials:
            self._log(trial)
        self.tracker.set_trial_tags(result.best.number, {"trial.best": "true"})

    def _log(self, trial: TrialFolder) -> None:
        if trial.number in self._logged:
            return
        self._logged.add(trial.number)
        points = {
            each.epoch: {n: value for n, value in each.metrics.items() if math.isfinite(value)}
            for each in trial.seen
        }
        tags = {"trial.number": str(trial.number), "trial.status": trial.status}
        if trial.reason:
            tags["trial.reason"] = trial.reason
        self.tracker.log_trial(
            TrialRun(
                number=trial.number,
                parameters={name: str(each) for name, each in trial.configuration.items()},
                points=points,
                tags=tags,
                status=STATUS.get(trial.status, "KILLED"),  # type: ignore[arg-type]
                started=int(trial.started * 1000),
                ended=int((trial.ended or time.time()) * 1000),
            )
        )
