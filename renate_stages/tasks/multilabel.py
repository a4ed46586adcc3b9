"""Multilabel classification: any number of labels per example, one logit for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from renate_stages.tasks.binary import bernoulli_distillation
from renate_stages.tasks.task import IGNORED, Task, outline, unless_all


class Multilabel(Task):
    """Targets are 0 or 1 for each label, `(B, L)`, or -100 (ignored); outputs are logits `(B, L)`.

    Rows have no single class label, so balancing, confusion, calibration and flips do not apply.
    """

    name = "multilabel"

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        expected = "logits (B, L), one for each label, a float tensor"
        self.require_tensor_outputs(outputs, expected)
        if outputs.ndim != 2:
            raise self.refuse_outputs(outputs, expected)
        labels = f"0 or 1 for each label (B, {outputs.shape[1]}), or {IGNORED} to ignore one"
        if not isinstance(targets, Tensor) or targets.shape[1:] != outputs.shape[1:]:
            raise self.refuse_targets(outline(targets), labels, where)
        allowed = (targets == 0) | (targets == 1) | (targets == IGNORED)
        self.require_values(targets, allowed, labels, first_row, where)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over the counted labels of each example."""
        counted = targets != IGNORED
        wanted = (targets == 1).to(outputs.dtype)
        losses = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
        return (losses * counted).sum(1) / counted.sum(1).clamp(min=1)

    def weights(self, targets: Tensor) -> Tensor | None:
        """Return the share of counted labels of each row, so that each label counts equally."""
        counted = unless_all(targets != IGNORED)
        return None if counted is None else counted.mean(1)

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and int64 targets, which still have the ignored labels."""
        return outputs, targets.long()

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return `accuracy` of single labels, and `exact_match` of whole rows."""
        counted = targets != IGNORED
        right = (outputs > 0) == (targets == 1)
        whole = (right | ~counted).all(1)
        any_counted = counted.any(1)
        return {
            "accuracy": ((right & counted).sum(1), counted.sum(1)),
            "exact_match": (whole & any_counted, any_counted),
        }

    def distillation(
        self, outputs: Tensor, taught: Tensor, temperature: float, classes: Sequence[int] = ()
    ) -> Tensor:
        """Return the sum over labels of T^2 KL of Bernoulli distributions, mean over examples."""
        width = min(taught.shape[1], outputs.shape[1])
        return bernoulli_distillation(
            outputs[:, :width].float(), taught[:, :width].float(), temperature
        )

    def draws_per_row(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def sampled(self, outputs: Tensor, draws: Tensor) -> Tensor:
        drawn = draws[:, : outputs.shape[1]].to(outputs.device)
        return (drawn < outputs.double().sigmoid()).long()

    def negative_log_likelihood(self, outputs: Tensor, targets: Tensor) -> Tensor:
        counted = targets != IGNORED
        wanted = (targets == 1).float()
        losses = F.binary_cross_entropy_with_logits(outputs.float(), wanted, reduction="none")
        return (losses * counted).sum(1)
