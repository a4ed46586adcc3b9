"""Penalties on the distance from the parent's weights, or from the initial ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from renate_stages.learners.base import Learner
from renate_stages.learners.base.anchored import AnchoredPenalty
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult


class StartDistance(AnchoredPenalty):
    """Half the squared distance from the parent's weights; 0 in an update without a parent.

        1/2 sum over weights of (theta - theta_parent)^2

    The paper keeps the weights of new outputs near 0; here they are kept near their initial values.
    """

    def start_update(self, learner: Learner) -> None:
        super().start_update(learner)
        self._has_parent = learner.context.start.has_parent

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        if not self._has_parent:
            return self.trained[0][1].new_zeros(())
        return super().forward(new, memory) / 2


class InitialDistance(AnchoredPenalty):
    """The squared distance from the weights that the model had before its first update.

        sum over weights of (theta - theta_0)^2

    These weights are kept in the state. A parameter that is new or reshaped is kept near its own
    initial values.
    """

    survives = True

    def start_update(self, learner: Learner) -> None:
        super().start_update(learner)
        untrained = learner.context.start.untrained
        for name, _ in self.trained:
            if name in untrained:
                self.anchor(name).copy_(untrained[name])

    def restore(self, left: Mapping[str, Tensor]) -> bool:
        fits = False
        for name, anchor in self.named_buffers():
            if name in left and left[name].shape == anchor.shape:
                anchor.copy_(left[name])
                fits = True
        return fits


class L2SP(Learner):
    """L2-SP: fine-tuning with a penalty on the distance from the parent's weights.

        L = l(f(x), y) + l2_weight / 2 * sum of (theta - theta_parent)^2

    Li, Grandvalet & Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks", ICML 2018. It stores nothing.

    Args:
        context: The model, functions and settings of the update.
        l2_weight: Alpha, >= 0; from 0.001 to 1 in the paper.
        base: Hyperparameters of `Learner`.
    """

    def __init__(self, context: UpdateContext, l2_weight: float = 0.1, **base: Any) -> None:
        super().__init__(context, **base)
        self.components.append(StartDistance(in_range("l2_weight", l2_weight, 0)))


class L2Init(Learner):
    """L2 Init: fine-tuning with a penalty on the distance from the initial weights.

        L = l(f(x), y) + init_weight * sum of (theta - theta_0)^2

    Kumar, Marklund & Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative
    Regularization", arXiv 2308.11958, 2023. It keeps the model able to learn after many updates, and does not
    prevent forgetting. It stores one number per weight and no data.

    Args:
        context: The model, functions and settings of the update.
        init_weight: Lambda, >= 0; from 0.00001 to 0.01 in the paper.
        base: Hyperparameters of `Learner`.
    """

    def __init__(self, context: UpdateContext, init_weight: float = 1e-3, **base: Any) -> None:
        super().__init__(context, **base)
        self.components.append(InitialDistance(in_range("init_weight", init_weight, 0)))
