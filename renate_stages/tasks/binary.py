"""Binary classification with one logit: the log-odds of class 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.tasks.task import IGNORED, Answer, Task, outline, unless_all

LABELS = f"0 or 1 for each row (B,) or (B, 1), or {IGNORED} for rows to ignore"


class Binary(Task):
    """Targets are 0 or 1, `(B,)` or `(B, 1)`; outputs are one logit, `(B,)` or `(B, 1)`."""

    name = "binary"
    labelled = True

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        expected = "one logit per row, (B,) or (B, 1), a float tensor"
        self.require_tensor_outputs(outputs, expected)
        if outputs.shape[1:] not in ((), (1,)):
            raise self.refuse_outputs(outputs, expected)
        if not isinstance(targets, Tensor) or targets.shape[1:] not in ((), (1,)):
            raise self.refuse_targets(outline(targets), LABELS, where)
        values = targets.reshape(-1)
        allowed = (values == 0) | (values == 1) | (values == IGNORED)
        self.require_values(values, allowed, LABELS, first_row, where)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy of each example, 0 for ignored rows."""
        logits, labels = outputs.reshape(-1), targets.reshape(-1)
        counted = labels != IGNORED
        wanted = (labels == 1).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * counted

    def weights(self, targets: Tensor) -> Tensor | None:
        return unless_all(targets.reshape(-1) != IGNORED)

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return logits and int64 labels of the rows that count, both `(B,)`."""
        logits, labels = outputs.reshape(-1), targets.reshape(-1).long()
        counted = labels != IGNORED
        return (logits[counted], labels[counted]) if bool(counted.any()) else None

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        labels = targets.reshape(-1).long()
        counted = labels != IGNORED
        right = (outputs.reshape(-1) > 0).long() == labels
        return {"accuracy": (right & counted, counted)}

    def answer(self, outputs: Tensor, targets: Tensor) -> Answer:
        logits = outputs.reshape(-1).float()
        return Answer(targets.reshape(-1).long(), (logits > 0).long(), torch.sigmoid(logits.abs()))

    def distillation(
        self, outputs: Tensor, taught: Tensor, temperature: float, classes: Sequence[int] = ()
    ) -> Tensor:
        """Return T^2 KL of the Bernoulli distributions of the logits / T, mean over examples."""
        student, teacher = (each.reshape(-1, 1).float() for each in (outputs, taught))
        return bernoulli_distillation(student, teacher, temperature)

    def sampled(self, outputs: Tensor, draws: Tensor) -> Tensor:
        probability = outputs.reshape(-1).double().sigmoid()
        return (draws[:, 0].to(outputs.device) < probability).long()

    def negative_log_likelihood(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs.float(), targets)

    def true_probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        signs = 2 * (targets.reshape(-1) == 1).to(outputs.dtype) - 1
        return torch.sigmoid(signs * outputs.reshape(-1))


def bernoulli_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(Bernoulli(s(z' / T)) || Bernoulli(s(z / T))), summed over outputs.

    Args:
        student: Logits z, `(B, L)` float32.
        teacher: Logits z', `(B, L)` float32; NaN where a value is missing.
        temperature: T, > 0.

    Returns:
        The mean over examples, a scalar.
    """
    known = ~teacher.isnan()
    z, taught = student / temperature, torch.where(known, teacher, student) / temperature
    p = taught.sigmoid()
    divergence = p * (F.logsigmoid(taught) - F.logsigmoid(z)) + (1 - p) * (
        F.logsigmoid(-taught) - F.logsigmoid(-z)
    )
    return temperature**2 * divergence.sum(1).mean()
