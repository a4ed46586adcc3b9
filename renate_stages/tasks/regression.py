"""Regression: one or several real values per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.tasks.task import Task, outline


class Regression(Task):
    """Targets and outputs are values, `(B,)`, `(B, 1)` or `(B, ...)` of the same size per row.

    Distances are those of a Gaussian with unit variance around the outputs.
    """

    name = "regression"

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        expected = "values (B, ...), a float tensor"
        self.require_tensor_outputs(outputs, expected)
        values = f"numbers, {outputs[0].numel()} for each row, as many as the model has outputs"
        if not isinstance(targets, Tensor) or targets.is_complex():
            raise self.refuse_targets(outline(targets), values, where)
        if targets[0].numel() != outputs[0].numel():
            raise self.refuse_targets(outline(targets), values, where)
        self.require_values(targets, targets.isfinite(), "finite numbers", first_row, where)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of each example."""
        errors = F.mse_loss(
            outputs.reshape(targets.shape), targets.to(outputs.dtype), reduction="none"
        )
        return errors.flatten(1).mean(1) if errors.ndim > 1 else errors

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs in the shape of the targets, and targets in the outputs' dtype."""
        return outputs.reshape(targets.shape), targets.to(outputs.dtype)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the mean squared and the mean absolute error, each over the values of a row."""
        errors = outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        errors, rows = errors.cpu().double(), torch.ones(len(targets))
        return {"mse": (errors.square().mean(1), rows), "mae": (errors.abs().mean(1), rows)}

    def distillation(
        self, outputs: Tensor, taught: Tensor, temperature: float, classes: Sequence[int] = ()
    ) -> Tensor:
        """Return the mean squared distance; the temperature has no meaning here."""
        return squared_distance(outputs, taught.float())

    def draws_per_row(self, outputs: Tensor) -> int:
        return outputs[0].numel()

    def sampled(self, outputs: Tensor, draws: Tensor) -> Tensor:
        """Return the outputs plus standard normal noise."""
        flat = outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
        uniform = draws[:, : flat.shape[1]].to(outputs.device).clamp(1e-12, 1 - 1e-12)
        noise = torch.special.ndtri(uniform).to(outputs.dtype)
        return outputs.detach() + noise.reshape(outputs.shape)

    def negative_log_likelihood(self, outputs: Tensor, targets: Tensor) -> Tensor:
        errors = (outputs.float() - targets.reshape(outputs.shape).float()).square()
        return errors.reshape(len(errors), -1).sum(1) / 2


def squared_distance(outputs: Tensor, kept: Tensor) -> Tensor:
    """Return the mean squared distance over all known values, float32; 0 if no value is known.

    Args:
        outputs: `(B, K)`, any float dtype.
        kept: Stored values `(B, K)` float; NaN where a value is missing.
    """
    outputs = outputs.float()
    known = ~kept.isnan()
    if bool(known.all()):
        return F.mse_loss(outputs, kept)
    distance = torch.where(known, outputs - kept, outputs.new_zeros(())) ** 2
    return distance.sum() / known.sum().clamp(min=1)
