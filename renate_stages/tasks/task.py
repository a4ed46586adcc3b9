"""`Task`: the contract of all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from renate_stages.errors import ClassLabelsNeededError, OutputsError, TargetsError
from renate_stages.memory.spec import IGNORED


class Answer(NamedTuple):
    """Predictions of a task in which each row has one class label.

    Args:
        labels: True classes, int64 `(B,)`; `IGNORED` where a row does not count.
        predicted: Predicted classes, int64 `(B,)`.
        confidence: Probabilities of the predicted classes, float32 `(B,)` in [0, 1].
    """

    labels: Tensor
    predicted: Tensor
    confidence: Tensor


class Task(ABC):
    """What targets and outputs mean. Learners, evaluation, gate and report ask it, and never guess.

    Subclasses define the checks, the loss, and what follows from the outputs' distribution: how one
    model is distilled into another, and which targets the Fisher information is computed with.
    """

    name: ClassVar[str]
    labelled: ClassVar[bool] = False  # whether each row has one class label
    has_distribution: ClassVar[bool] = True  # whether outputs describe a distribution of targets
    grows: ClassVar[bool] = False  # whether the model needs an output for each label
    needs_loss_fn: ClassVar[bool] = False  # whether the user must define a loss
    ignores_shifts: ClassVar[bool] = (
        False  # whether adding a number to a row's outputs changes nothing
    )
    has_padding: ClassVar[bool] = False  # whether ignored targets may be padding of shorter rows

    @abstractmethod
    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        """Check a batch's targets and outputs.

        Args:
            outputs: The model's outputs for the batch.
            targets: The targets of the batch.
            first_row: Number of the batch's first row in its dataset, for the message.
            where: The dataset, for the message.

        Raises:
            TargetsError: If targets have another type, shape or range; it names the row.
            OutputsError: If the outputs do not fit.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the default loss of each example, `(B,)`; 0 for ignored targets."""

    def standard(self, targets: Any) -> Any:
        """Return targets in the type that PyTorch's losses take; called before any loss."""
        return targets

    def fitted(self, outputs: Any, targets: Any) -> Any:
        """Return the targets of a batch whose inputs were padded further, with longer batches."""
        return targets

    def weights(self, targets: Any) -> Tensor | None:
        """Return how much each row counts in a mean, `(B,)` float; None: all rows count equally."""
        return None

    def for_metrics(self, outputs: Any, targets: Any) -> tuple[Any, Any] | None:
        """Return outputs and targets that count, as torchmetrics takes them; None: nothing counts."""
        return outputs, targets

    def metrics(self, outputs: Any, targets: Any) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the default metrics that are means: for each, sums and counts per row, `(B,)`."""
        return {}

    def answer(self, outputs: Any, targets: Any) -> Answer | None:
        """Return the predicted class of each row; None if rows have no single class label."""
        return None

    def distillation(
        self,
        outputs: Any,
        taught: Any,
        temperature: float,
        classes: Sequence[int] = (),
        targets: Any = None,
    ) -> Tensor:
        """Return the divergence of the outputs from a teacher's, mean over examples, float32.

        Args:
            outputs: The model's outputs.
            taught: The teacher's outputs for the same inputs.
            temperature: T > 0 of distributions over labels; the result is scaled by T^2.
            classes: Labels to compare, for classification; empty: all that the teacher knows.
            targets: The targets, only for tasks with `has_padding`, which leave out ignored ones.
        """
        raise NotImplementedError(f"{self.name} does not define distillation")

    def draws_per_row(self, outputs: Any) -> int:
        """Return how many random numbers `sampled` needs for a row."""
        return 1

    def sampled(self, outputs: Any, draws: Tensor, targets: Any = None) -> Any:
        """Return targets drawn from the distribution that the outputs describe.

        Args:
            outputs: The model's outputs, `(B, ...)`.
            draws: Uniform random numbers in [0, 1), float64, with at least as many values per row
                as the targets have.
            targets: The targets, only for tasks with `has_padding`: ignored ones stay ignored.
        """
        raise NotImplementedError(f"{self.name} does not define a distribution")

    def negative_log_likelihood(self, outputs: Any, targets: Any) -> Tensor:
        """Return -log p(targets | outputs) of each example up to a constant, `(B,)` float32."""
        return self.loss(outputs, targets)

    def true_probability(self, outputs: Any, targets: Any) -> Tensor:
        """Return the probability of each row's true label, `(B,)`.

        Raises:
            ClassLabelsNeededError: If rows have no single class label.
        """
        raise ClassLabelsNeededError("this learner", f"those of task {self.name}")

    # -- for subclasses ---------------------------------------------------------------------------

    def refuse_targets(
        self, found: str, expected: str, where: str, row: int | None = None
    ) -> TargetsError:
        """Return the error for targets of this task."""
        return TargetsError(self.name, found, expected, where, row)

    def refuse_outputs(self, outputs: Any, expected: str) -> OutputsError:
        """Return the error for outputs of this task."""
        return OutputsError(self.name, outline(outputs), expected)

    def require_tensor_outputs(self, outputs: Any, expected: str) -> None:
        """Check that outputs are one tensor of floats."""
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            raise self.refuse_outputs(outputs, expected)

    def require_values(
        self, targets: Tensor, allowed: Tensor, expected: str, first_row: int, where: str
    ) -> None:
        """Check that all targets are allowed.

        Args:
            targets: `(B, ...)`.
            allowed: Whether each target is allowed, bool, of the same shape.
            expected: What is allowed.
            first_row: Number of the first row, for the message.
            where: The dataset, for the message.
        """
        if not bool(allowed.all()):
            wrong = (~allowed).nonzero()[0]
            value = targets[tuple(wrong)].item()
            row = first_row + int(wrong[0])
            raise self.refuse_targets(f"the target {value}", expected, where, row)

    def require_labels(
        self, targets: Tensor, classes: int, expected: str, first_row: int, where: str
    ) -> None:
        """Check that targets are labels in [0, classes) or ignored; arguments as above."""
        values = targets.long()
        allowed = ((values >= 0) & (values < classes)) | (values == IGNORED)
        self.require_values(values, allowed, expected, first_row, where)


def unless_all(counted: Tensor) -> Tensor | None:
    """Return a mask of counted targets as floats, or None if all count.

    An accelerator always gets the mask, because looking at it would make every step wait.
    """
    if counted.device.type == "cpu" and bool(counted.all()):
        return None
    return counted.float()


def outline(value: Any) -> str:
    """Describe a value's type, dtype and shape for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def is_whole(targets: Tensor) -> bool:
    """Return whether targets have an integer type."""
    return not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)


__all__ = ["IGNORED", "Answer", "Task", "is_whole", "outline", "unless_all"]
