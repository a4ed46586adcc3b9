"""Token classification: a label for each position of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from renate_stages.tasks.task import IGNORED, Task, outline


class Tokens(Task):
    """Targets are labels `(B, T)`, integers in [0, K) or -100 (ignored); outputs are `(B, T, K)`.

    Every counted position has equal weight, in the loss and in accuracy. Rows have no single class
    label, so balancing, confusion, calibration and flips do not apply.
    """

    name = "tokens"
    ignores_shifts = True
    has_padding = True
    grows = True

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        expected = "logits (B, T, K), K >= 2 for each position, a float tensor"
        self.require_tensor_outputs(outputs, expected)
        if outputs.ndim != 3 or outputs.shape[2] < 2:
            raise self.refuse_outputs(outputs, expected)
        classes = outputs.shape[2]
        labels = f"integers (B, {outputs.shape[1]}) in [0, {classes}), or {IGNORED} to ignore one"
        shape = tuple(outputs.shape[:2])
        if not isinstance(targets, Tensor) or targets.shape != shape or targets.is_floating_point():
            raise self.refuse_targets(outline(targets), labels, where)
        self.require_labels(targets, classes, labels, first_row, where)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over the counted positions of each example."""
        losses = self._losses(outputs, targets)
        return losses.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)

    def standard(self, targets: Tensor) -> Tensor:
        """Return labels as int64; PyTorch's cross-entropy refuses int32."""
        return targets.long()

    def fitted(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return targets for all positions of the outputs; those added as padding are ignored."""
        return F.pad(targets, (0, outputs.shape[1] - targets.shape[1]), value=IGNORED)

    def weights(self, targets: Tensor) -> Tensor:
        """Return the number of counted positions of each row."""
        return (targets != IGNORED).sum(1).float()

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return logits `(P, K)` and labels `(P,)` of the P positions that count."""
        counted = targets != IGNORED
        return (outputs[counted], targets[counted]) if bool(counted.any()) else None

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        counted = targets != IGNORED
        right = (outputs.argmax(2) == targets) & counted
        return {"accuracy": (right.sum(1), counted.sum(1))}

    def distillation(
        self,
        outputs: Tensor,
        taught: Tensor,
        temperature: float,
        classes: Sequence[int] = (),
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return T^2 KL of the softmax distributions, mean over positions; 0 if none counts.

        Args:
            outputs: Logits `(B, T, K)`, any float dtype.
            taught: The teacher's logits `(B, T, K')`.
            temperature: T, > 0.
            classes: The columns to use; those that one of them does not have are left out. Empty:
                all shared ones.
            targets: Labels `(B, T)`; positions that are ignored, such as padding, do not count.
        """
        counted = ... if targets is None else targets != IGNORED
        outputs, taught = outputs[counted], taught[counted]
        width = min(taught.shape[-1], outputs.shape[-1])
        columns = [each for each in classes or range(width) if each < width]
        student, teacher = (
            (each[..., columns].flatten(0, -2).float() / temperature).log_softmax(1)
            for each in (outputs, taught)
        )
        divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
        return temperature**2 * divergence / max(1, len(student))

    def draws_per_row(self, outputs: Tensor) -> int:
        return outputs.shape[1]

    def sampled(self, outputs: Tensor, draws: Tensor, targets: Tensor | None = None) -> Tensor:
        up_to = outputs.double().softmax(2).cumsum(2)
        drawn = draws[:, : outputs.shape[1], None].to(outputs.device)
        labels = (up_to <= drawn).sum(2).clamp(max=outputs.shape[2] - 1)
        return labels if targets is None else labels.masked_fill(targets == IGNORED, IGNORED)

    def negative_log_likelihood(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._losses(outputs.float(), targets).sum(1)

    @staticmethod
    def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(
            outputs.transpose(1, 2), targets.long(), reduction="none", ignore_index=IGNORED
        )
