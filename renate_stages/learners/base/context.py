"""`UpdateContext`: what an update passes to its learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import UserResultError, user_code
from renate_stages.models import RenateModule
from renate_stages.randomness import Generators


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True)
class UpdateContext:
    """What an update gives to its learner.

    Args:
        model: The model to train, with the parent's weights.
        untrained: Weights of a newly built model, for learners that start anew.
        loss_fn: Loss of outputs and targets, one value per example or their mean.
        optimizer_fn: Builds the optimizer from the parameters to train.
        lr_scheduler_fn: Builds a scheduler from the optimizer, and says how often it steps:
            `epoch` or `step`. None: a constant rate.
        task_id: Names the model's parameters of this task.
        generators: The update's named generators.
        num_workers: Loader processes.
        prefetch: Steps that a thread reads ahead; None: 2 for a GPU, none for the CPU.
        data_on_device: Whether all examples of the training lie on the device.
        test_transforms: Of inputs and targets, as examples are measured.
        memory_transforms: Of inputs and targets, as examples are replayed.
        old_classes: Labels met before this update, ascending; empty where it is the first.
        has_parent: Whether the model has the weights of an earlier update.
        max_epochs: Passes over the new data; None: as many as it takes.
        precision: As of `trainer.precision`.
        gradient_clip_val: Largest gradient norm; None: any. For learners that step themselves:
            Lightning clips no other gradients.
        gradient_clip_algorithm: Likewise: `norm`, of the whole gradient, or `value`, of each number.
        batches_a_step: How many batches' gradients are added up for a step of the optimizer.
        compiled: Whether batches go through the model as `torch.compile` makes it.
        say: Tells the user something in one line.
        parent_weights: Returns the parent's tensors by name, as they were stored; a model may have
            grown since. None without a parent.
    """

    model: RenateModule
    untrained: Mapping[str, Any]
    loss_fn: Callable[[Any, Any], Tensor]
    optimizer_fn: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    lr_scheduler_fn: tuple[Callable[[torch.optim.Optimizer], Any], str] | None
    task_id: str
    generators: Generators
    num_workers: int = 0
    prefetch: int | None = None
    data_on_device: bool = False
    test_transforms: tuple[Any, Any] = (None, None)
    memory_transforms: tuple[Any, Any] = (None, None)
    old_classes: tuple[int, ...] = ()
    has_parent: bool = False
    max_epochs: int | None = None
    precision: str = "32-true"
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"
    batches_a_step: int = 1
    compiled: bool = False
    say: Callable[[str], None] = _say_nothing
    parent_weights: Callable[[], Mapping[str, Tensor]] = dict

    def optimizers(self, parameters: list[nn.Parameter]) -> Any:
        """Build optimizer and scheduler, as Lightning's `configure_optimizers` returns them.

        Args:
            parameters: What to train.

        Raises:
            UserCodeError: If what `optimizer_fn` or `lr_scheduler_fn` returned fails.
            UserResultError: If it builds something else.
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
        return [optimizer], [{"scheduler": scheduler, "interval": interval}]
