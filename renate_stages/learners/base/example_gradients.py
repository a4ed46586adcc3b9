"""Average a function of each example's own gradient over examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

from renate_stages.data import Batch, StoredDataset
from renate_stages.errors import NotFiniteImportanceError
from renate_stages.learners.base.learner import Learner

MOST_EXAMPLES = 64  # examples per vectorized call
MOST_NUMBERS = 2**25  # gradient values per vectorized call, 128 MiB
Weights = dict[str, Tensor]
ValueOfOne = Callable[[Any, Any], Tensor]  # of outputs and targets with B = 1
Differentiated = Callable[[Weights, Any, Any], Tensor]  # of weights, inputs and targets, without B


def mean_over_examples(
    learner: Learner,
    rows: np.ndarray,
    value_of_one: ValueOfOne,
    of_gradient: Callable[[Tensor], Tensor],
    targets_of: Callable[[Any, Any, slice], Any] | None = None,
) -> Weights:
    """Return the mean over examples of a function of each example's gradient, in evaluation mode.

    Args:
        learner: The learner with the model and the new data, which is read with its test transforms.
        rows: Rows of the new data, int64.
        value_of_one: Returns the scalar to differentiate, from one example's outputs and targets.
        of_gradient: The function of a gradient, elementwise.
        targets_of: Returns other targets, from the outputs and targets of a block, and the place of
            the block in `rows`.

    Raises:
        NotFiniteImportanceError: If a value is not finite.

    Returns:
        A float32 tensor for each trained parameter, by name and of the parameter's shape.
    """
    model, new = learner.model, learner.new
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    measured = StoredDataset(new.store, new.rows, *learner.context.functions.test_transforms)
    numbers = sum(value.numel() for value in weights.values())
    size = max(1, min(MOST_EXAMPLES, MOST_NUMBERS // max(1, numbers)))
    total = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in weights.items()}
    training, sums = model.training, sums_together

    def of_example(weights: Weights, inputs: Any, target: Any) -> Tensor:
        one, target = (tree_map(lambda part: part[None], each) for each in (inputs, target))
        task = {"task_id": learner.context.task_id}
        return value_of_one(functional_call(model, weights, (one,), task), target)

    model.eval()
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        inputs, targets = measured.__getitems__(rows[block])
        batch = learner.moved(Batch(inputs, targets, rows[block]))
        targets = batch.targets
        if targets_of is not None:
            with torch.no_grad():
                outputs = learner(batch.inputs)
            targets = targets_of(outputs, targets, block)
        given = weights, batch.inputs, targets
        try:
            added = sums(of_example, of_gradient, *given)
        except (RuntimeError, TypeError, ValueError):  # the model cannot be vectorized
            if sums is sums_one_by_one:
                raise
            sums = sums_one_by_one
            added = sums(of_example, of_gradient, *given)
        for name, value in added.items():
            total[name] += value
    model.train(training)
    bad = [name for name, value in total.items() if not bool(value.isfinite().all())]
    if bad:
        raise NotFiniteImportanceError(bad)
    return {name: value / max(1, len(rows)) for name, value in total.items()}


def sums_together(
    value: Differentiated,
    of_gradient: Callable[[Tensor], Tensor],
    weights: Weights,
    inputs: Any,
    targets: Any,
) -> Weights:
    """Return the sums over a batch's examples that `mean_over_examples` needs, vectorized.

    Args:
        value: The scalar to differentiate.
        of_gradient: As there.
        weights: Weights by name.
        inputs: A tensor `(B, ...)` or a tree of such tensors.
        targets: A tensor `(B, ...)` or a tree of such tensors.
    """
    gradients = vmap(grad(value), in_dims=(None, 0, 0))(weights, inputs, targets)
    return {name: of_gradient(value.float()).sum(0) for name, value in gradients.items()}


def sums_one_by_one(
    value: Differentiated,
    of_gradient: Callable[[Tensor], Tensor],
    weights: Weights,
    inputs: Any,
    targets: Any,
) -> Weights:
    """Return what `sums_together` does, with one backward pass per example."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in weights.items()}
    for row in range(len(_first(inputs))):
        one, target = (
            tree_map(lambda part, row=row: part[row], each) for each in (inputs, targets)
        )
        found = value(leaves, one, target)
        gradients = torch.autograd.grad(found, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                sums[name] += of_gradient(gradient.float())
    return sums


def _first(tree: Any) -> Tensor:
    while not isinstance(tree, Tensor):
        tree = next(iter(tree.values() if isinstance(tree, Mapping) else tree))
    return tree
