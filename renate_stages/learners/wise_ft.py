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
from renate_stages.models import RenateModule
from renate_stages.models.module import unwrap

UNMEASURED = 0.5  # the coefficient without validation data: the paper's advice, section 4
TABLE = "interpolation"


class WiSEFT(Learner):
    """WiSE-FT: fine-tunes, then goes back part of the way to the parent's weights.

        theta = (1 - c) theta_parent + c theta_new        (eq. 1)

    Buffers of floats, such as running statistics, are interpolated too. Weights that the parent does
    not have in the same shape, and other buffers, are those of the new model. The first update is
    fine-tuning. It works with any way of training: `class MyLearner(WiSEFT, ExperienceReplay)`.

    Args:
        context: What the update gives.
        interpolation: The coefficient c in [0, 1]; or `validation`: the one whose model is best on
            all validation data so far by the headline metric, of equals the one of smaller loss.
            Without validation data that is 0.5.
        num_coefficients: How many coefficients are measured, from 0 to 1, >= 2.
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
        """Interpolate the weights; measure the whole curve where there is validation data."""
        if not self.context.start.has_parent:
            return
        old = self.context.start.parent_weights()
        new = {name: value.clone() for name, value in tensors_of(self.model).items()}
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
            self.context.say(f"no validation data: weights are interpolated at {chosen}")
        interpolate(self.model, old, new, float(chosen))

    def tables(self) -> dict[str, list[dict[str, float]]]:
        return {**super().tables(), **({TABLE: self._curve} if self._curve else {})}


def tensors_of(model: RenateModule) -> dict[str, Tensor]:
    """Return a model's parameters and buffers, the tensors themselves, by name as they are stored."""
    module = unwrap(model)
    return {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}


@torch.no_grad()
def interpolate(
    model: RenateModule, old: Mapping[str, Tensor], new: Mapping[str, Tensor], coefficient: float
) -> None:
    """Set a model's tensors to `(1 - c) old + c new`.

    Args:
        model: Whose tensors are set.
        old: By name; what is missing, of another shape or not of floats is taken from `new`.
        new: By name, every tensor of the model.
        coefficient: c in [0, 1]; 0 gives the bits of `old`, 1 those of `new`.
    """
    for name, target in tensors_of(model).items():
        start = old.get(name)
        if start is None or start.shape != target.shape or not target.is_floating_point():
            target.copy_(new[name])
        else:
            target.copy_(torch.lerp(start.to(target), new[name], coefficient))


def _sides(measure: Measure, model: RenateModule) -> dict[str, float]:
    """Return the metrics on the data of old updates, their mean, and on those of the new one."""
    found = dict(measure.by_update(model))
    new = found.pop(measure.update, {})
    sides = {f"new_{name}": value for name, value in new.items()}
    for name in next(iter(found.values()), {}):
        sides[f"old_{name}"] = float(np.mean([metrics[name] for metrics in found.values()]))
    return sides
