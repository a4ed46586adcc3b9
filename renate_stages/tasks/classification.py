"""Classification: one label per example, one output per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from renate_stages.tasks.task import IGNORED, Answer, Task, outline, unless_all


class Classification(Task):
    """Targets are labels `(B,)`, integers in [0, K) or -100 (ignored); outputs are logits `(B, K)`."""

    name = "classification"
    ignores_shifts = True
    labelled = True
    grows = True

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        expected = "logits (B, K) with K >= 2, a float tensor"
        self.require_tensor_outputs(outputs, expected)
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise self.refuse_outputs(outputs, expected)
        classes = outputs.shape[1]
        labels = f"integers (B,) in [0, {classes}), or {IGNORED} for rows to ignore"
        if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
            raise self.refuse_targets(outline(targets), labels, where)
        if targets.is_complex():
            raise self.refuse_targets(outline(targets), labels, where)
        self.require_labels(targets, classes, labels, first_row, where)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each example."""
        return F.cross_entropy(outputs, targets.long(), reduction="none", ignore_index=IGNORED)

    def standard(self, targets: Tensor) -> Tensor:
        """Return labels as int64; PyTorch's cross-entropy refuses int32."""
        return targets.long()

    def weights(self, targets: Tensor) -> Tensor | None:
        return unless_all(targets != IGNORED)

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        counted = targets != IGNORED
        if bool(counted.all()):
            return outputs, targets
        return (outputs[counted], targets[counted]) if bool(counted.any()) else None

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        counted = targets != IGNORED
        return {"accuracy": ((outputs.argmax(1) == targets) & counted, counted)}

    def answer(self, outputs: Tensor, targets: Tensor) -> Answer:
        confidence, predicted = outputs.float().softmax(dim=1).max(dim=1)
        return Answer(targets.long(), predicted, confidence)

    def distillation(
        self, outputs: Tensor, taught: Tensor, temperature: float, classes: Sequence[int] = ()
    ) -> Tensor:
        """Return T^2 KL(softmax(taught / T) || softmax(outputs / T)), mean over examples.

        Args:
            outputs: Logits `(B, K)`, any float dtype.
            taught: The teacher's logits `(B, K')`, K' <= K.
            temperature: T, > 0.
            classes: The columns to use; those outside [0, K') are ignored. Empty: all shared ones.
        """
        width = min(taught.shape[1], outputs.shape[1])
        columns = [each for each in classes or range(width) if each < width]
        first = columns == list(range(len(columns)))  # a slice is cheaper than a gather
        chosen = slice(len(columns)) if first else columns
        student, teacher = (
            (each[:, chosen].float() / temperature).log_softmax(1) for each in (outputs, taught)
        )
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def sampled(self, outputs: Tensor, draws: Tensor) -> Tensor:
        """Return labels drawn from the softmax, int64 `(B,)`."""
        up_to = outputs.double().softmax(1).cumsum(1)
        drawn = (up_to <= draws[:, :1].to(outputs.device)).sum(1)
        return drawn.clamp(max=outputs.shape[1] - 1)

    def negative_log_likelihood(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs.float(), targets)

    def true_probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        labels = targets.long().clamp(min=0)[:, None]
        return outputs.softmax(1).gather(1, labels)[:, 0]
