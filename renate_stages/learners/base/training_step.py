"""`TrainingStep`: one step of a learner: passes through the model, losses and how they are weighted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from renate_stages.data import Batch, StepBatch
from renate_stages.data.batch import weights_of
from renate_stages.data.ranks import averaged, ranks, summed
from renate_stages.data.steps import share
from renate_stages.errors import UnweightedLearnerError
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.epoch_losses import EpochLosses
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.base.masking import mask_classes
from renate_stages.models import RenateModule
from renate_stages.models.joint_statistics import JointStatistics
from renate_stages.models.modes import evaluating
from renate_stages.tasks.row_loss import RowLoss


class KeptFeatures:
    """A forward hook that keeps the features of the model's latest call, `(B, F)`.

    It is not a method of the learner, because a copy of the model would copy the learner then.
    """

    def __init__(self) -> None:
        self.latest: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.latest = output.flatten(1)

    def __reduce__(self) -> tuple[type[KeptFeatures], tuple[()]]:
        return KeptFeatures, ()


class TrainingStep(LightningModule):
    """Runs batches through the model and adds up the losses of a step.

    Args:
        context: The model, functions and settings that the update passes to the learner.
        mask_unused_classes: Whether the training loss ignores the outputs of classes that no update
            has seen.
    """

    calls_loss: ClassVar[bool] = True  # whether training calls the loss of the user or the task
    weights_rows: ClassVar[bool | None] = None
    """Whether the loss weights rows. False: rows with weights are refused before training; None: the
    first step checks that `loss_of` was called with their weights."""

    def __init__(self, context: UpdateContext, mask_unused_classes: bool = False) -> None:
        super().__init__()
        self.context = context
        self.model = context.start.model
        self.mask_unused_classes = mask_unused_classes
        if mask_unused_classes:
            context.require_labels("mask_unused_classes")
        self.classes: list[int] = []  # seen by this update or an earlier one
        self.components = nn.ModuleList()
        self._losses = EpochLosses()
        self._used_weights = False  # whether any loss so far has weighted rows
        self._features = KeptFeatures()
        self._compiled: list[Any] = []  # a list, so that the model is not registered twice
        self._statistics: JointStatistics | None = None  # of batch norm, if processes share a step

    @property
    def parts(self) -> list[LossComponent]:
        """All components."""
        return cast(list[LossComponent], list(self.components))

    @property
    def active(self) -> list[LossComponent]:
        """The components that add to the loss."""
        return [component for component in self.parts if component.weight]

    @property
    def trained_model(self) -> RenateModule:
        """The model that steps train; another than `model` for learners that train two."""
        return self.model

    @property
    def row_loss(self) -> RowLoss:
        """The loss of the model's outputs: that of the user or of the task."""
        return self.context.functions.loss_fn

    @property
    def needs_features(self) -> bool:
        """Whether a pass returns the inputs of the model's last layer."""
        return any(component.needs_features for component in self.parts)

    @property
    def needs_layers(self) -> bool:
        """Whether a pass returns the outputs of the model's hooked layers."""
        return any(component.needs_layers for component in self.parts)

    def forward(self, inputs: Any) -> Any:
        """Return the trained model's outputs for this update's task."""
        model = self.trained_model
        if self._compiled and model.training:  # measuring does not need compiling
            model = self._compiled[0]
        return model(inputs, task_id=self.context.task_id)

    def pass_on(self, batch: Batch, left_out: Sequence[int] = ()) -> ForwardResult:
        """Run a batch through the model.

        Args:
            batch: The batch.
            left_out: Placeholder rows of a process whose share is empty, if `batch` does not mark
                them itself; they do not count in batch statistics.
        """
        self._features.latest = None
        if self._statistics is not None:
            self._statistics.left_out = [0] if batch.is_placeholder else list(left_out)
        outputs = self(batch.inputs)
        features = self._features.latest
        return ForwardResult(batch, outputs, features, self.layers_of_last_call())

    def layers_of_last_call(self) -> tuple[Tensor, ...]:
        """Return the outputs of the model's hooked layers in its last call, if they are needed."""
        if not self.needs_layers:
            return ()
        layers = tuple(self.model.get_intermediate_representation())
        self.model.reset_intermediate_representation_cache()
        return layers

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the model in evaluation mode and full precision in the block.

        So what a step computes besides its loss changes neither batch statistics nor random numbers.
        """
        with evaluating(self.model), torch.autocast(self.device.type, enabled=False):
            yield
        self.layers_of_last_call()  # forgets the outputs of hooked layers

    def supervised(self, passed: ForwardResult) -> Tensor:
        """Return the mean of the user's loss on a batch, weighted by `weighed`."""
        batch = passed.batch
        return self.weighed(self.loss_of(passed.outputs, batch.targets, batch), batch)

    def weighed(self, mean: Tensor, *batches: Batch) -> Tensor:
        """Weight a mean over batches for processes that share a step.

        Lightning averages the gradients as if all processes had equally many examples; the weight
        corrects for this (see `data.steps.share`). With one process the mean is unchanged.
        """
        weight = share(*batches)
        return mean if weight == 1 else weight * mean

    def loss_of(self, outputs: Any, targets: Any, *batches: Batch) -> Tensor:
        """Return the mean `row_loss` of the rows that count; mask classes if `mask_unused_classes`.

        With weights w of rows it is sum(w l) / sum(w), and 0 if all weights are 0.

        Args:
            outputs: Outputs for the rows of all batches.
            targets: Their targets.
            batches: The batches. If several processes share them, the mean is scaled so that
                `weighed` gives the mean over the counted rows of all processes.
        """
        if self.mask_unused_classes:
            outputs = mask_classes(outputs, self.classes)
        loss_fn, weights = self.row_loss, weights_of(batches)
        self._used_weights |= weights is not None
        mean, divisor = loss_fn.mean_and_divisor(outputs, targets, weights)
        if ranks().count == 1 or (loss_fn.all_count and weights is None):
            return mean
        rows = sum(len(batch) for batch in batches)
        own = mean.new_tensor(float(rows)) if divisor is None or not rows else divisor
        everything = summed(own)
        if not rows:  # `weighed` gives it no weight
            return mean
        share_of_rows = rows / sum(len(batch.all_rows) for batch in batches)
        least = torch.finfo(own.dtype).tiny
        return mean * (own.detach() / everything.clamp(min=least) / share_of_rows)

    def check_weighted(self, batch: Batch) -> None:
        """Check after the loss of a step that it has not ignored the weights of rows.

        Raises:
            UnweightedLearnerError: If it has.
        """
        if batch.weights is not None and not (self._used_weights or self.weights_rows):
            raise UnweightedLearnerError([type(self).__name__])

    def with_components(
        self, loss: Tensor, new: ForwardResult, draws: Sequence[ForwardResult] | None
    ) -> Tensor:
        """Add the terms of all active components to a loss.

        Args:
            loss: The loss to add to, weighted as by `supervised`.
            new: The new batch.
            draws: The draws from the memory, in the order of the components that use them; None or
                empty if nothing is replayed.
        """
        number = -1
        for component in self.active:
            if component.replays:
                if not draws:
                    continue
                number += component.own_draw or number < 0
            draw = draws[number] if component.replays and draws else None
            term = component(new, draw)
            # A term that depends only on the weights stays correct: all shares average to 1.
            term = self.weighed(term, (draw or new).batch)
            self._losses.add(type(component).__name__, term, len(new.batch.all_rows))
            loss = loss + component.weight * term
        return loss

    def epoch_losses(self) -> dict[str, float]:
        """Return the mean losses since the last call, and reset them."""
        found, self._losses = self._losses.means(), EpochLosses()
        return averaged(found)

    def transfer_batch_to_device(
        self, batch: StepBatch, device: torch.device, dataloader_idx: int
    ) -> StepBatch:
        """Move the tensors of a step to a device; row numbers stay on the CPU."""
        if device.type == "cpu" and not self._is_double:
            return batch
        return StepBatch(self.moved(batch.new), tuple(self.moved(drawn) for drawn in batch.memory))

    @property
    def _is_double(self) -> bool:
        first = next(self.model.parameters(), None)
        return first is not None and first.dtype == torch.float64

    def num_examples(self, batch: Any) -> int:
        """Return the number of new examples in a batch of `train_dataloader`."""
        return len(batch.new.all_rows)

    def moved(self, batch: Batch) -> Batch:
        """Return a batch on the model's device, and in float64 if the training is."""
        if self._is_double:
            batch = batch.mapped(lambda each: each.double() if each.is_floating_point() else each)
        if self.device.type == "cpu":
            return batch
        return batch.mapped(lambda tensor: tensor.to(self.device, non_blocking=True))
