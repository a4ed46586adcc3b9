"""Memory aware synapses (Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget",
ECCV 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from renate_stages.learners.base import Learner
from renate_stages.learners.base.anchored import ImportancePenalty
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.example_gradients import (
    ValueOfOne,
    mean_over_examples,
    random_rows,
)
from renate_stages.tasks.task import IGNORED, Task


class OutputSensitivity(ImportancePenalty):
    """Penalizes changes of weights to which the model's outputs are sensitive.

        sum over weights of Omega (theta - theta*)^2                               (eq. 4)
        Omega <- Omega + mean over examples of |d ||f(x)||^2 / d theta|     (eqs. 2 and 3)

    With weights of rows it is the weighted mean.

    Args:
        weight: Factor of the term, >= 0.
        examples: Maximum number of new examples to compute the sensitivity from, >= 1.
    """

    def __init__(self, weight: float = 1.0, examples: int = 1000) -> None:
        super().__init__(weight)
        self.examples = examples

    def end_training(self, learner: Learner) -> None:
        generator = learner.context.generators.numpy("sensitivity")
        rows = random_rows(learner, self.examples, generator)
        sensitivity = mean_over_examples(
            learner, rows, _squared_norm(learner.context.task), torch.abs
        )
        for name, _ in self.trained:
            self.importance(name).add_(sensitivity[name])
        self.move_anchor()


class MAS(Learner):
    """MAS: fine-tuning with a penalty on changes of weights that the outputs are sensitive to.

        L = l(f(x), y) + mas_weight * sum of Omega (theta - theta*)^2

    It stores two numbers per weight and no data. Importance needs no targets, so it is the same for
    every task.

    Args:
        context: The model, functions and settings of the update.
        mas_weight: Lambda, >= 0; 1 in the paper, which can diverge at a high learning rate.
        mas_examples: Number of new examples from which importance is computed, >= 1.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        mas_weight: float = 0.1,
        mas_examples: int = 1000,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        weight = in_range("mas_weight", mas_weight, 0)
        self.components.append(OutputSensitivity(weight, positive("mas_examples", mas_examples)))


def _squared_norm(task: Task) -> ValueOfOne:
    """Return the function ||f(x)||^2 of the outputs of one example, without those of padding."""

    def value(outputs: Any, targets: Any) -> Tensor:
        if task.has_padding:
            counted = task.fitted(outputs, targets) != IGNORED
            outputs = outputs * counted.reshape(
                *counted.shape, *[1] * (outputs.ndim - counted.ndim)
            )
        leaves = [leaf.float() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        return torch.stack([leaf.square().sum() for leaf in leaves]).sum()

    return value
