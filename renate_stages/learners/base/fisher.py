"""Compute the diagonal of the Fisher information: how much each weight affects the outputs.

It squares the gradient of each example. Many implementations square the gradient of a mini-batch's
mean loss instead, which shrinks as batches grow (van de Ven, "On the computation of the Fisher
Information in continual learning", ICLR blog posts, 2025).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renate_stages.learners.base.example_gradients import (
    ValueOfOne,
    Weights,
    mean_over_examples,
    random_rows,
)
from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.masking import mask_classes

KINDS = ("sampled", "empirical")


def diagonal_fisher(learner: Learner, examples: int, kind: str) -> Weights:
    """Return the mean over examples of the squared gradient of log p(y | x), in evaluation mode.

    With weights of rows it is the weighted mean.

    Args:
        learner: The learner with the model and the new data, from which random examples are taken
            with their test transforms.
        examples: Maximum number of examples, >= 1.
        kind: `sampled` draws y from the model's predictions, which gives the Fisher information;
            `empirical` uses the targets. A task without a distribution, such as `custom`, uses the
            gradient of the user's loss.

    Raises:
        NotFiniteImportanceError: If a value is not finite.

    Returns:
        A float32 tensor for each trained parameter, by name and of the parameter's shape.
    """
    generators, task = learner.context.generators, learner.context.task
    rows = random_rows(learner, examples, generators.numpy("fisher"))
    generator = generators.torch("fisher")
    draws: list[Tensor] = []  # for each random number of a row, those of all rows

    def sampled(outputs: Tensor, targets: Any, block: slice) -> Any:
        while len(draws) < task.draws_per_row(outputs):  # equal for blocks of another size
            draws.append(torch.rand(len(rows), generator=generator, dtype=torch.float64))
        drawn = torch.stack([each[block] for each in draws], dim=1)
        padded = (task.fitted(outputs, targets),) if task.has_padding else ()
        return task.sampled(_visible(learner, outputs), drawn, *padded)

    draws_targets = task.has_distribution and kind == "sampled"
    loss_of_one, targets_of = _loss_of_one(learner), sampled if draws_targets else None
    return mean_over_examples(learner, rows, loss_of_one, torch.square, targets_of)


def _loss_of_one(learner: Learner) -> ValueOfOne:
    context = learner.context

    def loss(outputs: Any, targets: Any) -> Tensor:
        if context.task.has_distribution:
            visible = _visible(learner, outputs)
            return context.task.negative_log_likelihood(visible, targets).sum()
        return context.functions.loss_fn(outputs, targets).mean()

    return loss


def _visible(learner: Learner, outputs: Tensor) -> Tensor:
    """Return the logits that the training loss uses, masked if the learner masks classes."""
    return mask_classes(outputs, learner.classes) if learner.mask_unused_classes else outputs
