"""Show the trials of a search: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from renate_stages.tuning.objective import Objective

if TYPE_CHECKING:
    from renate_stages.tuning.trial_folder import TrialFolder

ROWS = 15  # number of trials in the table, the latest ones
REFRESH = 0.2  # seconds
UP, CLEAR = "\x1b[{}A", "\x1b[K"


class TrialView:
    """Shows trials; called repeatedly with all of them.

    Args:
        objective: The objective, whose value is shown.
        searched: Names of the hyperparameters to show.
        say: Function that prints a line if the output is not a terminal.
    """

    def __init__(
        self, objective: Objective, searched: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self.objective = objective
        self.searched = searched
        self.say = say
        self._is_live = sys.stdout.isatty()
        self._drawn: list[str] = []
        self._last = -math.inf
        self._printed: dict[int, str] = {}  # last printed status by trial

    def __call__(self, trials: Sequence[TrialFolder]) -> None:
        if self._is_live:
            ended = all(trial.status != "running" for trial in trials)
            if ended or time.monotonic() - self._last >= REFRESH:
                self._draw(trials)
            return
        for trial in trials:
            if trial.status not in ("running", self._printed.get(trial.number)):
                self.say(self._line(trial))
            self._printed[trial.number] = trial.status

    def _draw(self, trials: Sequence[TrialFolder]) -> None:
        lines = [self._line(trial) for trial in trials[-ROWS:]]
        if lines != self._drawn:
            up = UP.format(len(self._drawn)) if self._drawn else ""
            sys.stdout.write(up + "".join(f"{line}{CLEAR}\n" for line in lines))
            sys.stdout.flush()
            self._drawn = lines
        self._last = time.monotonic()

    def _line(self, trial: TrialFolder) -> str:
        values = ", ".join(
            f"{name} {trial.configuration[name]}"
            for name in self.searched
            if name in trial.configuration
        )
        result = ""
        if trial.shown:
            last, metric = trial.seen[-1], self.objective.metric
            result = f", {metric} {last.metrics[metric]:.4f} after epoch {last.epoch}"
        reason = f": {trial.reason}" if trial.reason else ""
        return f"trial {trial.number} {trial.status}{result} ({values}){reason}"
