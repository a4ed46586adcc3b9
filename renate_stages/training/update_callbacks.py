"""`UpdateCallbacks`: the Lightning callbacks of an update, chosen by the settings of `trainer`."""

from __future__ import annotations

from pytorch_lightning import Callback

from renate_stages.data.ranks import ranks
from renate_stages.errors import InvalidParamsError
from renate_stages.learners.base.measure import Measure
from renate_stages.params.params import TrainerParams
from renate_stages.training.callbacks import (
    CostRecorder,
    CurveRecorder,
    Curves,
    EndOnSignal,
    Follower,
    KeepBest,
    StopAfter,
    StopEarly,
)


class UpdateCallbacks:
    """The callbacks of an update, in the order in which Lightning calls them.

    Args:
        params: Settings of the trainer.
        measure: Measures a model on all validation data; None without validation data.
        follower: A callback that is called after each epoch and may end the training.

    Raises:
        InvalidParamsError: If `keep` is `best`, or `patience` is set, and there is no validation data.
    """

    def __init__(
        self, params: TrainerParams, measure: Measure | None, follower: Follower | None
    ) -> None:
        self._recorder, self.cost = CurveRecorder(measure), CostRecorder()
        self.all: list[Callback] = [self._recorder, self.cost]
        self.best: KeepBest | None = None
        if params.keep == "best" or (params.keep == "auto" and measure is not None):
            self.best = KeepBest(_needed(measure, "keep"), self.curves)
            self.all.append(self.best)
        if params.patience is not None:
            found = _needed(measure, "patience")
            self.all.append(StopEarly(found, self.curves, params.patience))
        if follower is not None:
            follower.start(self.curves, measure, self.best)
            self.all.append(follower)
        if params.max_steps is not None:
            self.all.append(StopAfter(params.max_steps))
        if ranks().count > 1:
            self.all.append(EndOnSignal())

    @property
    def curves(self) -> Curves:
        """Losses and metrics of each epoch so far."""
        return self._recorder.curves

    def add(self, callback: Callback) -> None:
        """Add a callback after the others."""
        self.all.append(callback)


def _needed(measure: Measure | None, setting: str) -> Measure:
    if measure is None:
        cure = {"keep": "keep: last", "patience": "patience: null"}[setting]
        problem = f"trainer.{setting}: finding the best epoch needs validation data, which is "
        raise InvalidParamsError(
            "params.yaml", [f"{problem}missing: set data.validation_fraction, or {cure}"]
        )
    return measure
