"""Run Syne Tune's loop over trials within a budget, and choose the best trial.

With one worker and a budget in trials or epochs, a search depends only on its inputs and the seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from syne_tune import Tuner
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import TrialScheduler, TrialSuggestion
from syne_tune.tuner_callback import TunerCallback

from renate_stages.errors import NoFinishedTrialError, ObjectiveNotFiniteError
from renate_stages.params import TuningParams
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.seeded import SeededScheduler
from renate_stages.tuning.trial_folder import TrialFolder
from renate_stages.tuning.trials import Trials

Show = Callable[[Sequence[TrialFolder]], None]
FAILURES = 5  # number of failed trials after which a search without any report ends


class Budget:
    """Decides when a search ends; `reached` is the name of the first limit that was reached.

    Args:
        tuning: The limits `max_trials`, `max_completed`, `max_epochs_total` and `max_time`.
        trials: The trials of the search.
    """

    def __init__(self, tuning: TuningParams, trials: Trials) -> None:
        self.tuning = tuning
        self.trials = trials
        self.reached: str | None = None
        self._started = time.monotonic()

    @property
    def epochs(self) -> int:
        """Total number of epochs that all trials have run."""
        return sum(trial.shown for trial in self.trials.records.values())

    def __call__(self, _: Any = None) -> bool:
        """Return whether the search must end now, so that running trials are stopped."""
        tuning, limit = self.tuning, None
        if tuning.max_epochs_total is not None and self.epochs >= tuning.max_epochs_total:
            limit = "max_epochs_total"
        if tuning.max_time is not None and time.monotonic() - self._started >= tuning.max_time:
            limit = "max_time"
        completed = sum(each.status == "completed" for each in self.trials.records.values())
        if tuning.max_completed is not None and completed >= tuning.max_completed:
            limit = "max_completed"
        failed = sum(trial.status == "failed" for trial in self.trials.records.values())
        if failed >= FAILURES and not self.epochs:
            limit = "failures"
        self.reached = self.reached or limit
        return limit is not None

    @property
    def has_trials(self) -> bool:
        """Whether another trial may be started."""
        most = self.tuning.max_trials
        return most is None or len(self.trials.records) < most


class LimitedScheduler(TrialScheduler):
    """A scheduler that starts no more trials than the budget allows; running trials continue.

    Args:
        inner: The scheduler that makes all other decisions.
        budget: The budget of the search.
    """

    def __init__(self, inner: SeededScheduler, budget: Budget) -> None:
        super().__init__(random_seed=0)  # it uses no random numbers
        self.inner = inner
        self.budget = budget
        self.on_trial_add = inner.on_trial_add
        self.on_trial_result = inner.on_trial_result
        self.on_trial_complete = inner.on_trial_complete
        self.on_trial_error = inner.on_trial_error
        self.on_trial_remove = inner.on_trial_remove
        self.metric_names = inner.metric_names
        self.metric_mode = inner.metric_mode
        self.metadata = inner.metadata

    def suggest(self) -> TrialSuggestion | None:
        """Return a trial to start or to resume, or None if none is left."""
        if self.budget():
            return None
        may_start = self.budget.has_trials
        suggestion = self.inner.suggest() if may_start else self.inner.resume()
        if suggestion is None:
            self.budget.reached = "the space" if may_start else "max_trials"
        return suggestion


class _Silent:
    """Replaces Syne Tune's status messages, and suppresses what it prints at the end."""

    def __init__(self) -> None:
        self.printed = redirect_stdout(StringIO())

    def print_tuning_complete(self) -> None:
        self.printed.__enter__()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Follow(TunerCallback):
    """Shows the trials, and keeps only the checkpoint of the best completed trial."""

    def __init__(
        self, trials: Trials, objective: Objective, watchers: Sequence[Show], silent: _Silent
    ) -> None:
        self.trials = trials
        self.objective = objective
        self.watchers = watchers
        self.silent = silent

    def on_loop_end(self) -> None:
        for watch in self.watchers:
            watch(list(self.trials.records.values()))

    def on_trial_complete(self, trial: Trial, result: dict[str, Any]) -> None:
        best = best_trial(self.trials.records.values(), self.objective)
        for record in self.trials.records.values():
            if record.status == "completed" and record is not best:
                record.drop_checkpoint()

    def on_tuning_end(self) -> None:
        self.silent.printed.__exit__(None, None, None)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        trials: All trials, in the order in which they were started.
        best: The best trial.
        ended_by: What ended the search: a limit of the budget, or `the space`.
    """

    trials: tuple[TrialFolder, ...]
    best: TrialFolder
    ended_by: str


def search(
    trials: Trials,
    scheduler: SeededScheduler,
    tuning: TuningParams,
    objective: Objective,
    *watchers: Show,
) -> SearchResult:
    """Run trials until the budget is used up.

    Args:
        trials: The backend that runs trials.
        scheduler: Chooses the trials and stops some of them early.
        tuning: The budget and the number of workers.
        objective: Compares trials.
        watchers: Functions that are called with all trials repeatedly.

    Raises:
        NoFinishedTrialError: If no trial has reported an epoch within the budget.
        ObjectiveNotFiniteError: If no trial has reported a finite objective.
        TrialMistakeError: If the first trial failed with a user's mistake.
    """
    budget = Budget(tuning, trials)
    silent = _Silent()
    follow = _Follow(trials, objective, watchers, silent)
    tuner = Tuner(
        trial_backend=trials,
        scheduler=LimitedScheduler(scheduler, budget),
        stop_criterion=budget,
        n_workers=tuning.n_workers,
        sleep_time=0,  # the backend itself waits for messages
        max_failures=2**31,
        tuner_name="search",
        suffix_tuner_name=False,
        save_tuner=False,
        callbacks=[follow],
        trial_backend_path=str(trials.folder),
        output_logger=silent,  # type: ignore[arg-type]
    )
    tuner.tuner_path = trials.folder.parent / "syne-tune"
    tuner.run()
    records = tuple(trials.records.values())
    follow.on_loop_end()
    best = best_trial(records, objective)
    values = {each.number: value_of(each, objective) for each in records if each.shown}
    if values and not any(map(math.isfinite, values.values())):
        raise ObjectiveNotFiniteError(objective.metric, values)
    if best is None:
        raise NoFinishedTrialError(len(records), records[0].log() if records else [])
    return SearchResult(records, best, budget.reached or "the space")


def best_trial(trials: Iterable[TrialFolder], objective: Objective) -> TrialFolder | None:
    """Return the trial with the best last report (the first of equals), or None without reports."""
    best, most = None, math.nan
    for trial in trials:
        value = value_of(trial, objective)
        if trial.status != "failed" and objective.better(value, most):
            best, most = trial, value
    return best


def value_of(trial: TrialFolder, objective: Objective) -> float:
    """Return the objective in a trial's last report, or NaN if it has no report."""
    return trial.seen[-1].metrics[objective.metric] if trial.shown else math.nan
