"""Bias correction (Wu et al., "Large Scale Incremental Learning", CVPR 2019)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renate_stages.data import Batch, StoredDataset
from renate_stages.errors import (
    ClassLabelsNeededError,
    InvalidHyperparameterError,
    ModelMismatchError,
)
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.last_layer import last_linear_layer
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.working_memory import BLOCK
from renate_stages.learners.distilled_er import DistilledReplay
from renate_stages.models.modes import evaluating
from renate_stages.models.module import unwrap

LOG_ALPHA, BETA = 0.5, 5.0  # standard deviations of the priors of log(alpha) and beta


class BiC(DistilledReplay):
    """BiC: replay with distillation, then a correction of new classes' logits on held-out examples.

        L: see `DistilledReplay`                                                (eqs. 1 to 3)
        q_k = alpha * o_k + beta for a new class k,   q_k = o_k for an old one          (eq. 4)

    A part of the memory and equally many new examples of each class are held out: this update does not
    train on them, though earlier ones may have. They may enter the memory at its end. After training,
    alpha > 0 and beta minimize the cross-entropy of q on these N examples, with equal weight for each
    class (and within it, the weights of rows), plus ((log(alpha) / 0.5)^2 + (beta / 5)^2) / 2N. This prior, which the paper does not have,
    keeps a correction from few examples small. The correction is then multiplied into the rows of the
    last linear layer, so the model does not grow. An update without old or without new classes holds
    out nothing and corrects nothing.

    Args:
        context: The model, functions and settings of the update.
        holdout_fraction: Held-out examples per class, as a share of an old class's mean number of
            examples in memory, in (0, 0.5]; 0.1 in the paper. At least one, and at most half of a
            class's examples.
        base: Hyperparameters of `DistilledReplay`; `memory_update` is always `end`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
    """

    def __init__(
        self,
        context: UpdateContext,
        holdout_fraction: float = 0.1,
        **base: Any,
    ) -> None:
        super().__init__(context, **{**base, "memory_update": "end"})
        context.require_labels("BiC")
        if in_range("holdout_fraction", holdout_fraction, 0, 0.5) == 0:
            raise InvalidHyperparameterError(
                "holdout_fraction", holdout_fraction, "a number in (0, 0.5]"
            )
        self.holdout_fraction = holdout_fraction

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        last_linear_layer(self.model, "BiC scales the rows")  # refuses a model before training
        super().start_update(new, memory, keepable)
        if len(self._held_new):
            self._check_layer()

    def finish_model(self, measure: Measure | None) -> None:
        super().finish_model(measure)
        if not len(self._held_new):
            return
        parts = [self._outputs_of(*each) for each in self._held_out()]
        outputs, labels, weights = (torch.cat(each) for each in zip(*parts, strict=True))
        alpha, beta = fitted_correction(
            outputs[:, self.classes], labels, self.classes, self.new_classes, weights
        )
        layer = last_linear_layer(self.model, "BiC scales the rows")
        with torch.no_grad():
            layer.weight[self.new_classes] *= alpha
            layer.bias[self.new_classes] = alpha * layer.bias[self.new_classes] + beta
        self.context.say(
            f"BiC multiplied the logits of new classes by {alpha:.3g} and added {beta:.3g}, from "
            f"{len(labels)} held-out examples"
        )

    # -- held-out examples ------------------------------------------------------------------------

    def hold_out(self, new: StoredDataset, memory: StoredDataset) -> None:
        """Choose the held-out rows of both datasets, and leave them out of training."""
        self._held_new = self._held_old = np.empty(0, dtype=np.int64)
        self.trained_rows = self.replayed_rows = None
        if not (self.old_classes and self.new_classes and len(memory)):
            return
        kept, fresh = memory.labels(), new.labels()
        if kept is None or fresh is None:
            raise ClassLabelsNeededError("BiC", "not stored as one integer per example")
        old = [np.flatnonzero(kept == each) for each in self.old_classes]
        per_class = max(1, round(self.holdout_fraction * np.mean([len(each) for each in old])))
        draws = self.context.generators.numpy("holdout")

        def chosen(rows: np.ndarray) -> np.ndarray:
            return draws.permutation(rows)[: min(per_class, len(rows) // 2)]

        held_old = np.concatenate([chosen(each) for each in old])
        held_new = np.concatenate(
            [chosen(np.flatnonzero(fresh == each)) for each in self.new_classes]
        )
        if not len(held_old) or not len(held_new):
            self.context.say("BiC corrects nothing: too few examples per class to hold some out")
            return
        self._held_old, self._held_new = np.sort(held_old), np.sort(held_new)
        self.replayed_rows = np.setdiff1d(np.arange(len(memory)), held_old)
        self.trained_rows = np.setdiff1d(np.arange(len(new)), held_new)

    def _held_out(self) -> list[tuple[StoredDataset, np.ndarray]]:
        """Return both datasets with their test transforms, and their held-out rows."""
        pairs = (self.memory, self._held_old), (self.new, self._held_new)
        transforms = self.context.functions.test_transforms
        return [(StoredDataset(each.store, each.rows, *transforms), rows) for each, rows in pairs]

    @torch.no_grad()
    def _outputs_of(
        self, examples: StoredDataset, rows: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs for rows, float64 `(n, K)`, labels and weights, all on the CPU."""
        outputs: list[Tensor] = []
        labels: list[Tensor] = []
        with evaluating(self.model):
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                batch = self.moved(Batch.of(examples, block))
                outputs.append(self(batch.inputs).double().cpu())
                labels.append(batch.targets.long().cpu())
        self.layers_of_last_call()
        weights = examples.weights(rows)
        weights = torch.ones(len(rows)) if weights is None else weights
        return torch.cat(outputs), torch.cat(labels), weights.double()

    def _check_layer(self) -> None:
        """Check that the last layer computes the outputs, and that it has a bias to change.

        Raises:
            ModelMismatchError: If not.
        """
        layer, seen = last_linear_layer(self.model, "BiC scales the rows"), []
        hook = layer.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            outputs, *_ = self._outputs_of(self._held_out()[1][0], self._held_new[:2])
        finally:
            hook.remove()
        name = type(unwrap(self.model)).__name__
        if len(seen) != 1 or not torch.equal(seen[0].double().cpu(), outputs):
            raise ModelMismatchError(
                f"BiC corrects the outputs of the last linear layer, and {name} changes them afterwards",
                "end the model in a linear layer, name it with `output_layer`, or choose another learner",
            )
        if layer.bias is None:
            raise ModelMismatchError(
                f"BiC adds a number to outputs, and the last linear layer of {name} has no bias",
                "give the layer a bias, or choose another learner such as WA",
            )


def fitted_correction(
    outputs: Tensor,
    labels: Tensor,
    classes: list[int],
    new: list[int],
    row_weights: Tensor | None = None,
) -> tuple[float, float]:
    """Return alpha and beta, which minimize the cross-entropy of `BiC` on held-out examples.

    Args:
        outputs: Logits of the seen classes, float64 `(n, S)`.
        labels: int64 `(n,)`; those of other classes than the seen ones are left out.
        classes: The S seen classes, ascending.
        new: The new classes, some of them.
        row_weights: Weights of rows within their class, float64 `(n,)`; None: all are equal.
    """
    columns = torch.tensor(classes)
    known = torch.isin(labels, columns)
    own = torch.ones_like(outputs[:, 0]) if row_weights is None else row_weights
    outputs, labels, own = outputs[known], torch.searchsorted(columns, labels[known]), own[known]
    is_new = torch.isin(columns, torch.tensor(new)).double()
    of_class = torch.bincount(labels, own, minlength=len(classes))
    least = torch.finfo(torch.float64).tiny
    weights = own / of_class.clamp(min=least)[labels]
    weights /= weights.sum().clamp(min=least)
    values = nn.Parameter(torch.zeros(2, dtype=torch.float64))  # log(alpha) and beta, scaled
    optimizer = torch.optim.LBFGS(
        [values], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        alpha, beta = (LOG_ALPHA * values[0]).exp(), BETA * values[1]
        corrected = outputs * (1 + (alpha - 1) * is_new) + beta * is_new
        mean = (weights * F.cross_entropy(corrected, labels, reduction="none")).sum()
        total = mean + values.square().sum() / (2 * max(1, len(labels)))
        total.backward()
        return total

    optimizer.step(loss)
    log_alpha, beta = (values.detach() * torch.tensor([LOG_ALPHA, BETA])).tolist()
    return math.exp(log_alpha), beta
