"""`UpdateContext`: what an update passes to its learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from renate_stages.errors import ClassLabelsNeededError, UserResultError, user_code
from renate_stages.models import RenateModule
from renate_stages.randomness import Generators
from renate_stages.tasks.row_loss import RowLoss
from renate_stages.tasks.task import Task


def _say_nothing(_: str) -> None:
    pass


class TrainerSettings(Protocol):
    """The settings of the block `trainer` in params.yaml that learners read.

    `renate_stages.params.TrainerParams` defines and documents them.
    """

    @property
    def max_epochs(self) -> int | None: ...
    @property
    def precision(self) -> str: ...
    @property
    def gradient_clip_val(self) -> float | None: ...
    @property
    def gradient_clip_algorithm(self) -> str: ...
    @property
    def accumulate_grad_batches(self) -> int: ...
    @property
    def compile(self) -> bool: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def prefetch(self) -> int | None: ...
    @property
    def data_on_device(self) -> bool: ...


@dataclass(frozen=True)
class StartingPoint:
    """The model at the start of an update.

    Args:
        model: The model to train, with the parent's weights.
        untrained: Weights of a newly built model, for learners that start from scratch.
        has_parent: Whether the model has the weights of an earlier update.
        parent_weights: Returns the parent's tensors by name, as they were stored; the model may
            have more or larger tensors now. Without a parent it returns an empty dict.
        old_classes: Labels of all earlier updates, ascending; empty in the first update.
        grown: Names of the model's tensors, without a wrapper's prefix, of layers that have grown for
            new labels, and of embeddings that have grown for new codes. The parent's have fewer rows,
            or as many.
    """

    model: RenateModule
    untrained: Mapping[str, Any]
    has_parent: bool = False
    parent_weights: Callable[[], Mapping[str, Tensor]] = dict
    old_classes: tuple[int, ...] = ()
    grown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrainingFunctions:
    """The user's functions that training calls, with their hyperparameters filled in.

    Args:
        loss_fn: The user's loss or the task's default loss; also names the task.
        optimizer_fn: Builds the optimizer from the parameters to train.
        lr_scheduler_fn: Builds a scheduler from the optimizer, together with its interval, `epoch`
            or `step`. None: a constant learning rate.
        test_transforms: Transforms of inputs and targets for evaluation.
        memory_transforms: Transforms of inputs and targets for replay.
    """

    loss_fn: RowLoss
    optimizer_fn: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    lr_scheduler_fn: tuple[Callable[[torch.optim.Optimizer], Any], str] | None = None
    test_transforms: tuple[Any, Any] = (None, None)
    memory_transforms: tuple[Any, Any] = (None, None)

    def optimizers(self, parameters: list[nn.Parameter]) -> Any:
        """Build optimizer and scheduler, as Lightning's `configure_optimizers` returns them.

        Args:
            parameters: Parameters to train.

        Raises:
            UserCodeError: If the function that `optimizer_fn` or `lr_scheduler_fn` returned fails.
            UserResultError: If it does not build an optimizer or a scheduler.
        """
        with user_code.running("what optimizer_fn returned"):
            optimizer = self.optimizer_fn(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            found = f"a function that returns {user_code.outline(optimizer)}"
            raise UserResultError("optimizer_fn", found, "one that returns a torch optimizer")
        if self.lr_scheduler_fn is None:
            return optimizer
        scheduler_fn, interval = self.lr_scheduler_fn
        with user_code.running("what lr_scheduler_fn returned"):
            scheduler = scheduler_fn(optimizer)
        if not callable(getattr(scheduler, "step", None)):
            found = f"a function that returns {user_code.outline(scheduler)}"
            raise UserResultError("lr_scheduler_fn", found, "one that returns a torch scheduler")
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            found = "a function that returns ReduceLROnPlateau, which needs a metric at each step"
            raise UserResultError("lr_scheduler_fn", found, "one for a scheduler without a metric")
        return [optimizer], [{"scheduler": scheduler, "interval": interval}]


@dataclass(frozen=True)
class UpdateContext:
    """The model, functions and settings that an update passes to its learner.

    Args:
        start: The model at the start, and the classes of earlier updates.
        functions: The user's loss, optimizer and transforms.
        trainer: Settings of the block `trainer`.
        task_id: Name of the task, for models with per-task parameters.
        generators: The update's named random generators.
        say: Prints one line for the user.
    """

    start: StartingPoint
    functions: TrainingFunctions
    trainer: TrainerSettings
    task_id: str
    generators: Generators
    say: Callable[[str], None] = _say_nothing

    @property
    def task(self) -> Task:
        """What targets and outputs mean."""
        return self.functions.loss_fn.task

    def require_labels(self, learner: str) -> None:
        """Check that each row has one class label, an index of the model's outputs.

        Raises:
            ClassLabelsNeededError: If the task is another than classification.
        """
        if self.task.name != "classification":
            raise ClassLabelsNeededError(learner, f"those of task {self.task.name}")
