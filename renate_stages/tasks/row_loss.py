"""`RowLoss`: the loss of a task or of the user, as a mean over the rows that count."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from renate_stages.errors import (
    LossReductionError,
    LossShapeError,
    UnweightedLossError,
    UserResultError,
    user_code,
)
from renate_stages.tasks.task import IGNORED, Task, is_whole, unless_all

CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)  # whose mean is weighted by class
SAME = 1e-3  # relative difference up to which two means count as equal: half precision


class Sums(NamedTuple):
    """What a batch adds to a mean over all rows.

    Args:
        total: Sum of the rows' losses.
        divisor: Sum of what the rows count.
        rows: Loss and divisor of each row, float64 `(rows, 2)` on the CPU; None if the loss is a
            scalar.
    """

    total: float
    divisor: float
    rows: Tensor | None = None


class RowLoss:
    """A loss whose mean over a batch is that over the rows that count.

    Rows with ignored targets are in neither the sum nor the divisor, and a class weight w_y of
    `nn.CrossEntropyLoss` gives sum(w_y l) / sum(w_y), as with PyTorch's `reduction="mean"`.

    Args:
        task: What the targets mean.
        loss_fn: The user's loss of (outputs, targets): one value per row, `(B, ...)`, or their
            mean, a scalar. None: the task's default loss.

    Raises:
        LossReductionError: If the loss is a PyTorch loss with `reduction="sum"`.
    """

    def __init__(self, task: Task, loss_fn: Callable[[Any, Any], Tensor] | None = None) -> None:
        self.task = task
        self.is_default = loss_fn is None
        self.all_count = False  # whether all rows are known to count equally
        self.loss_fn: Callable[[Any, Any], Tensor] = task.loss if loss_fn is None else loss_fn
        if getattr(loss_fn, "reduction", None) == "sum":
            raise LossReductionError('reduction="sum" grows with the number of rows in a batch.')

    @property
    def is_cross_entropy(self) -> bool:
        """Whether the loss is plain cross-entropy for class labels."""
        if self.is_default:
            return self.task.name == "classification"
        loss = self.loss_fn
        plain = isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None
        return plain and loss.label_smoothing == 0 and loss.ignore_index < 0

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Return what the loss itself returns."""
        return self.loss_fn(outputs, self.task.standard(targets))

    def rows_count_equally(self) -> None:
        """Record that no target of the update is ignored, so that only class weights can differ."""
        special = isinstance(self.loss_fn, CLASS_LOSSES) and (
            self.loss_fn.weight is not None or self.loss_fn.ignore_index >= 0
        )
        self.all_count = not special

    def mean(self, outputs: Any, targets: Any) -> Tensor:
        """Return the mean over the counted rows of a batch; 0 if no row counts."""
        return self.mean_and_divisor(outputs, targets)[0]

    def mean_and_divisor(
        self, outputs: Any, targets: Any, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean, and the sum that it was divided by; None: the number of rows.

        Args:
            outputs: The model's outputs.
            targets: The targets.
            weights: Weights w_i of rows, float `(B,)`, which give sum(w_i l_i) / sum(w_i), together
                with the weights of classes; None: 1 for each row.

        Raises:
            UnweightedLossError: If there are weights, and the loss is a scalar.
        """
        targets = self.task.standard(targets)
        if weights is not None:
            return self._weighted(outputs, targets, weights)
        loss = self.loss_fn(outputs, targets)
        counts = self._counts(loss, targets)
        if counts is None:
            return loss.mean(), None
        if loss.ndim == 0 and isinstance(self.loss_fn, CLASS_LOSSES):
            loss = self._without_reduction()(outputs, targets)
        total = counts.sum()
        if loss.ndim == 0:  # NaN if no row counts, with gradients that are NaN too
            return (loss if bool(total) else 0.0 * tree_leaves(outputs)[0].sum()), total
        least = torch.finfo(counts.dtype).tiny
        return self._rows(loss, counts, targets).sum() / total.clamp(min=least), total

    def sums(self, outputs: Any, targets: Any, rows: int) -> Sums:
        """Return the sum of a batch's losses and its divisor; over all batches they give the mean.

        Args:
            outputs: The model's outputs.
            targets: The targets.
            rows: Number of rows of the batch, B.

        Raises:
            UserCodeError: If the loss fails.
            UserResultError: If it is not a tensor.
            LossShapeError: If it is neither a scalar nor one value per row.
        """
        targets = self.task.standard(targets)
        loss = self._called(outputs, targets)
        if loss.ndim == 0 and isinstance(self.loss_fn, CLASS_LOSSES):
            loss = self._without_reduction()(outputs, targets)
        counts = self._counts(loss, targets)
        weights = torch.ones(rows).double() if counts is None else counts.cpu().double()
        weight = float(weights.sum())
        if loss.ndim == 0 or (loss.numel() == 1 and rows > 1):
            return Sums(float(loss) * weight if weight else 0.0, weight)
        if loss.shape[0] != rows:
            raise LossShapeError(loss.shape, rows)
        if not weight:
            return Sums(0.0, 0.0, torch.zeros(rows, 2).double())
        losses = self._rows(loss, counts, targets).cpu().double()
        return Sums(float(losses.sum()), weight, torch.stack([losses, weights], dim=1))

    def check(self, outputs: Any, targets: Any) -> None:
        """Check on two sizes of a batch that the loss of a row depends on that row alone.

        Args:
            outputs: The model's outputs of a batch; with fewer than two rows nothing is checked.
            targets: Its targets.

        Raises:
            LossReductionError: If the loss of a row depends on the other rows, or if the mean over
                a batch is not the mean of the means over its halves.
            LossShapeError: If it is neither a scalar nor one value per row.
        """
        targets = self.task.standard(targets)
        rows = len(tree_leaves(outputs)[0])
        half = rows // 2
        loss = self._called(outputs, targets)
        if loss.numel() != 1 and (not loss.ndim or loss.shape[0] != rows):
            raise LossShapeError(loss.shape, rows)
        if not half or isinstance(self.loss_fn, CLASS_LOSSES):
            return

        def part(start: int, stop: int) -> Tensor:
            return self._called(
                *(tree_map(lambda each: each[start:stop], t) for t in (outputs, targets))
            )

        whole, first, second = part(0, 2 * half), part(0, half), part(half, 2 * half)
        if whole.numel() == 1:
            weights = self.task.weights(targets)
            if weights is None or bool((weights == weights[0]).all()):
                self._check_mean(*(float(each) for each in (whole, first, second)))
            return
        if first.shape[1:] != whole.shape[1:] or not torch.allclose(
            first.float(), whole[:half].float(), rtol=SAME, atol=SAME, equal_nan=True
        ):
            raise LossReductionError(
                f"the loss of a row depends on the other rows of its batch: {2 * half} rows give "
                f"{tuple(whole.shape)}, {half} of them {tuple(first.shape)}. Squared errors of "
                "outputs (B, 1) and targets (B,), for example, become (B, B)."
            )

    def check_rows(self, outputs: Any, targets: Any) -> None:
        """Check that single rows can be weighted.

        Args:
            outputs: The model's outputs of a batch.
            targets: Its targets.

        Raises:
            UnweightedLossError: If the loss is a scalar that cannot be divided into those of rows.
        """
        targets = self.task.standard(targets)
        whole, loss = self._called(outputs, targets), self._of_rows(outputs, targets)
        if whole.ndim == 0 and not isinstance(self.loss_fn, CLASS_LOSSES):
            mean, itself = float(loss.float().mean()), float(whole)
            if abs(mean - itself) > SAME * max(1e-6, abs(itself)):
                raise UnweightedLossError(
                    f'it is not the mean of what it returns with reduction="none": {itself:.6g}, '
                    f"and {mean:.6g}"
                )

    # -- details ----------------------------------------------------------------------------------

    def _weighted(self, outputs: Any, targets: Any, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted mean and its divisor; 0 and 0 if no row counts."""
        loss = self._of_rows(outputs, targets)
        counts = self._counts(loss, targets)
        rows = self._rows(loss, counts, targets)
        total = (weights if counts is None else weights * counts).sum()
        least = torch.finfo(total.dtype).tiny
        return (weights * rows).sum() / total.clamp(min=least), total

    def _of_rows(self, outputs: Any, targets: Any) -> Tensor:
        """Return a loss for each row, `(B, ...)`, also if the loss is a module that averages them."""
        loss_fn = self.loss_fn
        averages = isinstance(loss_fn, nn.Module) and getattr(loss_fn, "reduction", "") == "mean"
        loss = (self._without_reduction() if averages else loss_fn)(outputs, targets)
        rows = len(tree_leaves(outputs)[0])
        if not loss.ndim or len(loss) != rows:
            shape = f"the loss of {rows} rows has shape {tuple(loss.shape)}"
            raise UnweightedLossError(f"{shape}, not one value for each row")
        return loss

    def _called(self, outputs: Any, targets: Any) -> Tensor:
        try:
            loss = self.loss_fn(outputs, targets)
        except Exception as error:  # noqa: BLE001 -- raised again as the user's error
            given = (
                f"outputs of {user_code.outline(outputs)}, targets of {user_code.outline(targets)}"
            )
            user_code.fail(f"loss_fn, given {given},", error)
        if not isinstance(loss, Tensor):
            expected = "one that returns a tensor: one loss per row, or their mean"
            raise UserResultError(
                "loss_fn", f"a function that returns {user_code.outline(loss)}", expected
            )
        return loss

    def _without_reduction(self) -> nn.Module:
        found = copy.copy(self.loss_fn)
        found.reduction = "none"  # type: ignore[attr-defined]
        return found  # type: ignore[return-value]

    def _counts(self, loss: Tensor, targets: Any) -> Tensor | None:
        """Return what each row adds to the divisor, `(B,)`; None: 1 for each row."""
        if isinstance(self.loss_fn, CLASS_LOSSES) and isinstance(targets, Tensor):
            return _class_counts(self.loss_fn, targets)
        weights = self.task.weights(targets)
        if weights is None or self.is_default or loss.ndim == 0:
            return weights
        if _is_per_position(loss, targets):
            return (targets != IGNORED).flatten(1).float().mean(1)
        return (weights > 0).float()  # rows of the user's loss count equally

    def _rows(self, loss: Tensor, counts: Tensor | None, targets: Any) -> Tensor:
        """Return what each row adds to the sum, `(B,)`."""
        rows = loss.flatten(1).mean(1) if loss.ndim > 1 else loss
        contained = isinstance(self.loss_fn, CLASS_LOSSES) or _is_per_position(loss, targets)
        return rows if counts is None or contained else rows * counts

    @staticmethod
    def _check_mean(whole: float, first: float, second: float) -> None:
        tolerance = SAME * max(1e-6, abs(first), abs(second))
        if abs(whole - (first + second) / 2) <= tolerance or math.isnan(first + second):
            return
        if abs(whole - (first + second)) <= 2 * tolerance:
            raise LossReductionError("it returns a sum, which grows with the number of rows.")
        raise LossReductionError(
            f"its value for a batch, {whole:.6g}, is not the mean of those of its halves, {first:.6g} "
            f"and {second:.6g}: rows do not count equally, or depend on one another."
        )


def _is_per_position(loss: Tensor, targets: Any) -> bool:
    """Return whether a loss has one value for each target of several per row, 0 if ignored."""
    return (
        isinstance(targets, Tensor)
        and targets.ndim > 1
        and is_whole(targets)
        and loss.shape == targets.shape
    )


def _class_counts(loss_fn: Any, targets: Tensor) -> Tensor | None:
    """Return the class weight of each row, 0 for ignored rows; None: 1 for each row."""
    if not is_whole(targets):  # probabilities of classes
        return None
    ignored, weight = targets == loss_fn.ignore_index, loss_fn.weight
    counts = unless_all(~ignored)
    if weight is not None:
        counts = (~ignored).float() if counts is None else counts
        counts = counts * weight.to(targets.device)[targets.masked_fill(ignored, 0).long()]
    return counts.flatten(1).mean(1) if counts is not None and counts.ndim > 1 else counts
