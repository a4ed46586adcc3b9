"""Compute the diagonal of the Fisher information: how much each weight affects the outputs.

It squares the gradient of each example. Many implementations square the gradient of a mini-batch's
mean loss instead, which shrinks as batches grow (van de Ven, "On the computation of the Fisher
Information in continual learning", ICLR blog posts, 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

from renate_stages.data import Batch, StoredDataset
from renate_stages.errors import NotFiniteFisherError
from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.masking import mask_classes

KINDS = ("sampled", "empirical")
MOST_EXAMPLES = 64  # examples per vectorized call
MOST_NUMBERS = 2**25  # gradient values per vectorized call, 128 MiB
Weights = dict[str, Tensor]
LossOfOne = Callable[[Weights, Any, Any], Tensor]


def diagonal_fisher(learner: Learner, examples: int, kind: str) -> Weights:
    """Return the mean over examples of the squared gradient of log p(y | x), in evaluation mode.

    Args:
        learner: The learner with the model and the new data, from which random examples are taken
            with their test transforms.
        examples: Maximum number of examples, >= 1.
        kind: `sampled` draws y from the model's predictions, which gives the Fisher information;
            `empirical` uses the targets. A task without a distribution, such as `custom`, uses the
            gradient of the user's loss.

    Raises:
        NotFiniteFisherError: If a value is not finite.

    Returns:
        A float32 tensor for each trained parameter, by name and of the parameter's shape.
    """
    model, new, generators = learner.model, learner.new, learner.context.generators
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    measured = StoredDataset(new.store, new.rows, *learner.context.functions.test_transforms)
    rows = generators.numpy("fisher").permutation(len(new))[:examples]
    task, generator = learner.context.task, generators.torch("fisher")
    numbers = sum(value.numel() for value in weights.values())
    size = max(1, min(MOST_EXAMPLES, MOST_NUMBERS // max(1, numbers)))

    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in weights.items()}
    training, squares = model.training, squares_together
    draws: list[Tensor] = []  # for each random number of a row, those of all rows
    model.eval()
    for start in range(0, len(rows), size):
        block_rows = rows[start : start + size]
        inputs, targets = measured.__getitems__(block_rows)
        batch = learner.moved(Batch(inputs, targets, block_rows))
        with torch.no_grad():
            outputs = learner(batch.inputs)
        targets = batch.targets
        if task.has_distribution and kind == "sampled":
            while len(draws) < task.draws_per_row(outputs):  # equal for blocks of another size
                draws.append(torch.rand(len(rows), generator=generator, dtype=torch.float64))
            drawn = torch.stack([each[start : start + size] for each in draws], dim=1)
            padded = (task.fitted(outputs, targets),) if task.has_padding else ()
            targets = task.sampled(_visible(learner, outputs), drawn, *padded)
        loss_of_one = _loss_of_one(learner)
        try:
            squared = squares(loss_of_one, weights, batch.inputs, targets)
        except (RuntimeError, TypeError, ValueError):  # the model cannot be vectorized
            if squares is squares_one_by_one:
                raise
            squares = squares_one_by_one
            squared = squares(loss_of_one, weights, batch.inputs, targets)
        for name, value in squared.items():
            sums[name] += value
    model.train(training)
    bad = [name for name, value in sums.items() if not bool(value.isfinite().all())]
    if bad:
        raise NotFiniteFisherError(bad)
    return {name: value / max(1, len(rows)) for name, value in sums.items()}


def squares_together(
    loss_of_one: LossOfOne, weights: Weights, inputs: Any, targets: Any
) -> Weights:
    """Return the sums of squared gradients over a batch's examples, with one vectorized call.

    Args:
        loss_of_one: Returns the loss for weights and one example's inputs and targets, without a
            batch dimension.
        weights: Weights by name.
        inputs: A tensor `(B, ...)` or a tree of such tensors.
        targets: A tensor `(B, ...)` or a tree of such tensors.
    """
    gradients = vmap(grad(loss_of_one), in_dims=(None, 0, 0))(weights, inputs, targets)
    return {name: value.float().square().sum(0) for name, value in gradients.items()}


def squares_one_by_one(
    loss_of_one: LossOfOne, weights: Weights, inputs: Any, targets: Any
) -> Weights:
    """Return what `squares_together` does, with one backward pass per example."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in weights.items()}
    for row in range(len(_first(inputs))):
        one, target = (
            tree_map(lambda part, row=row: part[row], each) for each in (inputs, targets)
        )
        loss = loss_of_one(leaves, one, target)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for name, value in zip(leaves, gradients, strict=True):
            if value is not None:
                sums[name] += value.float().square()
    return sums


def _loss_of_one(learner: Learner) -> LossOfOne:
    context = learner.context

    def loss(weights: Weights, inputs: Any, target: Any) -> Tensor:
        one, target = (tree_map(lambda part: part[None], each) for each in (inputs, target))
        outputs = functional_call(learner.model, weights, (one,), {"task_id": context.task_id})
        if context.task.has_distribution:
            visible = _visible(learner, outputs)
            return context.task.negative_log_likelihood(visible, target).sum()
        return context.functions.loss_fn(outputs, target).mean()

    return loss


def _visible(learner: Learner, outputs: Tensor) -> Tensor:
    """Return the logits that the training loss uses, masked if the learner masks classes."""
    return mask_classes(outputs, learner.classes) if learner.mask_unused_classes else outputs


def _first(tree: Any) -> Tensor:
    while not isinstance(tree, Tensor):
        tree = next(iter(tree.values() if isinstance(tree, Mapping) else tree))
    return tree
