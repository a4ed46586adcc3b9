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

from renate_stages.data.ranks import copy_from_rank_0
from renate_stages.errors import NotFiniteError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.measure import Measure

Curves = list[dict[str, float]]


class StopAfter(Callback):
    """Ends training after a number of optimizer steps.

    Lightning's own `max_steps` is not used, because a training that resumes at the end of an epoch
    would then repeat steps of that epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.on_train_batch_end(trainer)  # a resumed training may have no step left

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps


class EndOnSignal(Callback):
    """Restores the SIGTERM handler from before the training when several processes train.

    Lightning's own handler communicates with the other processes, whatever step they are in, and so
    can wait forever.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, *_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)


class CostRecorder(Callback):
    """Records the seconds and the new examples of a training, from its first step to its last."""

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
            for model in (learner.model, learner.measured):
                copy_from_rank_0(model, buffers_only=True)  # such as batch norm statistics
            row |= {f"val_{name}": each for name, each in self.measure(learner.measured).items()}
        self.curves.append(row)


class KeepBest(Callback):
    """Keeps all tensors of the best epoch on the validation data; of equal epochs, the first.

    Epochs that measure another model than the one to serve do not count (`Learner.is_final`).

    Args:
        measure: Ranks the epochs.
        curves: Rows of the epochs so far; another callback appends a row before this one is called.
    """

    def __init__(self, measure: Measure, curves: Curves) -> None:
        self.measure = measure
        self.curves = curves
        self.epoch = 0
        self._rank: tuple[float, ...] | None = None
        self._tensors: dict[str, Any] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Learner = pl_module  # type: ignore[assignment]
        if not learner.is_final:
            return
        rank = self.measure.rank(validation_metrics(self.curves[-1]))
        if self._rank is None or rank > self._rank:
            self._rank, self.epoch = rank, trainer.current_epoch + 1
            self._tensors = {
                name: each.detach().clone() if isinstance(each, Tensor) else each
                for name, each in pl_module.state_dict().items()
            }

    def give_back(self, learner: Learner) -> None:
        """Restore the learner and its model as they were after the best epoch."""
        if self._rank is not None:
            learner.load_state_dict(self._tensors)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "rank": self._rank, "tensors": self._tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self._rank = state_dict["epoch"], state_dict["rank"]
        self._tensors = state_dict["tensors"]


class StopEarly(Callback):
    """Ends training when the validation data has shown no better epoch for a number of epochs.

    Epochs that measure another model than the one to serve do not count (`Learner.is_final`).

    Args:
        measure: Ranks the epochs.
        curves: Rows of the epochs so far; another callback appends a row before this one is called.
        patience: Number of epochs without a better one after which training ends, >= 1.
    """

    def __init__(self, measure: Measure, curves: Curves, patience: int) -> None:
        self.measure = measure
        self.curves = curves
        self.patience = patience
        self._best: tuple[float, ...] | None = None
        self._waited = 0

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop |= self._waited >= self.patience  # a resumed training may be complete

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Learner = pl_module  # type: ignore[assignment]
        if not learner.is_final:
            return
        rank = self.measure.rank(validation_metrics(self.curves[-1]))
        better = self._best is None or rank > self._best
        self._best = rank if better else self._best
        self._waited = 0 if better else self._waited + 1
        trainer.should_stop |= self._waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._waited = state_dict["best"], state_dict["waited"]


class Follower(Callback):
    """Base class of callbacks that follow a training; called after each epoch is recorded.

    A follower can set `trainer.should_stop` to end the training early. Like every Lightning
    callback it can save its own state in checkpoints with `state_dict` and `load_state_dict`.
    """

    curves: Curves
    measure: Measure | None
    best: KeepBest | None

    def start(self, curves: Curves, measure: Measure | None, best: KeepBest | None) -> None:
        """Store what the training records.

        Args:
            curves: One row per epoch, appended as training proceeds.
            measure: Measures a model on all validation data; None without validation data.
            best: Knows the best epoch so far; None if the last epoch is kept.
        """
        self.curves, self.measure, self.best = curves, measure, best


def validation_metrics(row: Mapping[str, float]) -> dict[str, float]:
    """Return the validation loss and metrics from an epoch's row of the curves."""
    return {n.removeprefix("val_"): each for n, each in row.items() if n.startswith("val_")}


def is_last_epoch(trainer: Trainer) -> bool:
    """Return whether training ends with the current epoch, as far as is known now."""
    return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
