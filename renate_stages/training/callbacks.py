"""Lightning callbacks that run during training."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from renate_stages.data.ranks import take_from_the_first
from renate_stages.errors import NotFiniteError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.measure import Measure

Curves = list[dict[str, float]]


class StopAfter(Callback):
    """Ends training after a number of steps.

    Not Lightning's own `max_steps`: with it, a training that goes on from the end of an epoch takes
    steps of that epoch again.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.on_train_batch_end(trainer)  # a training that goes on may have taken them all

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps


class EndOnSignal(Callback):
    """Lets SIGTERM end a process of several as it did before training began.

    Lightning's own handler speaks to the other processes, wherever in a step they are, and so can
    wait for ever.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)


class CostRecorder(Callback):
    """Counts what a training takes, from its first step to its last."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.examples = 0
        self._start = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        learner: Learner = pl_module  # type: ignore[assignment]
        self.examples += learner.num_examples(batch)

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.monotonic() - self._start


class CurveRecorder(Callback):
    """Records the loss of each epoch, and the metrics on all validation data so far."""

    def __init__(self, measure: Measure | None) -> None:
        self.measure = measure
        self.curves: Curves = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        learner: Learner = pl_module  # type: ignore[assignment]
        row |= {f"train_{name}": value for name, value in learner.epoch_losses().items()}
        if not math.isfinite(row.get("train_loss", 0)):
            raise NotFiniteError(trainer.current_epoch + 1)
        if self.measure is not None:
            for model in (learner.model, learner.served):
                take_from_the_first(model, buffers_only=True)  # of layers that keep statistics
            row |= {f"val_{name}": each for name, each in self.measure(learner.served).items()}
        self.curves.append(row)


class KeepBest(Callback):
    """Keeps all tensors of the epoch that is best on the validation data, the first of equals.

    Args:
        measure: Says which of two epochs is better.
        curves: Of the epochs so far; filled up by another callback before this one is called.
    """

    def __init__(self, measure: Measure, curves: Curves) -> None:
        self.measure = measure
        self.curves = curves
        self.epoch = 0
        self._rank: tuple[float, ...] | None = None
        self._tensors: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank = self.measure.rank(validation_metrics(self.curves[-1]))
        if self._rank is None or rank > self._rank:
            self._rank, self.epoch = rank, trainer.current_epoch + 1
            self._tensors = {
                name: each.detach().clone() if isinstance(each, Tensor) else each
                for name, each in pl_module.state_dict().items()
            }

    def give_back(self, learner: Learner) -> None:
        """Set the learner, its model included, to what it was after the best epoch."""
        if self._rank is not None:
            learner.load_state_dict(self._tensors)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "rank": self._rank, "tensors": self._tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self._rank = state_dict["epoch"], state_dict["rank"]
        self._tensors = state_dict["tensors"]


class Follower(Callback):
    """Follows a training from outside, epoch by epoch; called once an epoch is recorded.

    To end the training before its time it sets `trainer.should_stop`. What follows has its share of
    the checkpoints: `state_dict` and `load_state_dict`, as every callback of Lightning.
    """

    curves: Curves
    measure: Measure | None
    best: KeepBest | None

    def start(self, curves: Curves, measure: Measure | None, best: KeepBest | None) -> None:
        """Take what the training records.

        Args:
            curves: Filled up epoch by epoch.
            measure: Measures a model on all validation data; None without any.
            best: Knows the best epoch so far; None where the last one is kept.
        """
        self.curves, self.measure, self.best = curves, measure, best


def validation_metrics(row: Mapping[str, float]) -> dict[str, float]:
    """Return loss and metrics on the validation data from an epoch's row of the curves."""
    return {n.removeprefix("val_"): each for n, each in row.items() if n.startswith("val_")}


def is_last_epoch(trainer: Trainer) -> bool:
    """Return whether training ends with the running epoch, as far as can be known."""
    return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
