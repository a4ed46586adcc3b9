"""WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.new_rows import with_new_rows
from renate_stages.models import RenateModule
from renate_stages.models.module import unwrap

UNMEASURED = 0.5  # the coefficient without validation data, as the paper's section 4 advises
TABLE = "interpolation"


class WiSEFT(Learner):
    """WiSE-FT: fine-tunes, then interpolates between the parent's weights and the new ones.

        theta = (1 - c) theta_parent + c theta_new        (eq. 1)

    Float buffers, such as running statistics, are interpolated too. The new model's values are kept
    for other buffers and for weights that the parent does not have in the same shape. The first
    update is fine-tuning. You can combine it with any learner:
    `class MyLearner(WiSEFT, ExperienceReplay)`.

    Args:
        context: The model, functions and settings of the update.
        interpolation: The coefficient c in [0, 1]; or `validation`: the one with the best headline
            metric on all validation data so far, in a tie the one with the lower loss. Without
            validation data, `validation` means 0.5.
        num_coefficients: Number of coefficients from 0 to 1 to measure, >= 2.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        interpolation: float | str = "validation",
        num_coefficients: int = 11,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        if isinstance(interpolation, str) and interpolation != "validation":
            allowed = "validation, or a number in [0, 1]"
            raise InvalidHyperparameterError("interpolation", interpolation, allowed)
        self.interpolation = (
            interpolation
            if isinstance(interpolation, str)
            else in_range("interpolation", interpolation, 0, 1)
        )
        self.num_coefficients = positive("num_coefficients", num_coefficients)
        in_range("num_coefficients", num_coefficients, 2)
        self._curve: list[dict[str, float]] = []

    def finish_model(self, measure: Measure | None) -> None:
        """Interpolate the weights; with validation data, measure the model at each coefficient."""
        if not self.context.start.has_parent:
            return
        old = self.context.start.parent_weights()
        new = {name: value.clone() for name, value in tensors_of(self.model).items()}
        old = with_new_rows(old, new, self.context.start.grown)  # new outputs stay as trained
        chosen = self.interpolation
        if measure is not None:
            grid = np.linspace(0, 1, self.num_coefficients).tolist()
            if isinstance(chosen, float) and chosen not in grid:
                grid = sorted([*grid, chosen])
            ranks: list[tuple[float, float]] = []
            for coefficient in grid:
                interpolate(self.model, old, new, coefficient)
                if isinstance(chosen, str):
                    ranks.append(measure.rank(measure(self.model)))
                self._curve.append({"coefficient": coefficient, **_sides(measure, self.model)})
            if isinstance(chosen, str):
                chosen = grid[ranks.index(max(ranks))]
            for row in self._curve:
                row["chosen"] = int(row["coefficient"] == chosen)
        elif isinstance(chosen, str):
            chosen = UNMEASURED
            self.context.say(f"no validation data, so the interpolation coefficient is {chosen}")
        interpolate(self.model, old, new, float(chosen))

    def tables(self) -> dict[str, list[dict[str, float]]]:
        return {**super().tables(), **({TABLE: self._curve} if self._curve else {})}


def tensors_of(model: RenateModule) -> dict[str, Tensor]:
    """Return a model's parameters and buffers, not copied, by their names in the state dict."""
    module = unwrap(model)
    return {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}


@torch.no_grad()
def interpolate(
    model: RenateModule, old: Mapping[str, Tensor], new: Mapping[str, Tensor], coefficient: float
) -> None:
    """Set a model's tensors to `(1 - c) old + c new`.

    Args:
        model: The model to change.
        old: Tensors by name. A tensor is copied from `new` instead if it is missing here, has
            another shape or is not of a float dtype.
        new: Every tensor of the model, by name.
        coefficient: c in [0, 1]; 0 gives exactly `old`, 1 exactly `new`.
    """
    for name, target in tensors_of(model).items():
        start = old.get(name)
        if start is None or start.shape != target.shape or not target.is_floating_point():
            target.copy_(new[name])
        else:
            target.copy_(torch.lerp(start.to(target), new[name], coefficient))


def _sides(measure: Measure, model: RenateModule) -> dict[str, float]:
    """Return the mean metrics over old updates' validation data, and those of the new update's."""
    metrics_by_update = dict(measure.by_update(model))
    new = metrics_by_update.pop(measure.update, {})
    sides = {f"new_{name}": value for name, value in new.items()}
    for name in next(iter(metrics_by_update.values()), {}):
        sides[f"old_{name}"] = float(
            np.mean([metrics[name] for metrics in metrics_by_update.values()])
        )
    return sides
