"""Compute the gradient of each example, and the mean of a function of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from renate_stages.data import Batch, StoredDataset
from renate_stages.errors import NotFiniteImportanceError
from renate_stages.learners.base.learner import Learner
from renate_stages.models.modes import evaluating

MOST_EXAMPLES = 64  # examples per vectorized call
MOST_NUMBERS = 2**25  # gradient values per vectorized call, 128 MiB
Weights = dict[str, Tensor]
ValueOfOne = Callable[[Any, Any], Tensor]  # of outputs and targets with B = 1
Differentiated = Callable[[Weights, Any, Any], Tensor]  # of weights, inputs and targets, without B


class ExampleGradients:
    """Computes the gradient of each example of a batch, vectorized if the model allows it.

    Gradients are with respect to the trained parameters, and leave every `grad` as it is. The model
    is used in its current mode, which should be evaluation.

    Args:
        learner: The learner whose model is differentiated.
        value_of_one: Returns the scalar to differentiate, from one example's outputs and targets.
    """

    def __init__(self, learner: Learner, value_of_one: ValueOfOne) -> None:
        self._learner = learner
        self._value_of_one = value_of_one
        self._vectorized = True  # until the model refuses

    @property
    def weights(self) -> Weights:
        """The trained parameters by name, detached."""
        named = self._learner.model.named_parameters()
        return {name: each.detach() for name, each in named if each.requires_grad}

    @property
    def block(self) -> int:
        """Number of examples whose gradients should be computed at once."""
        numbers = sum(value.numel() for value in self.weights.values())
        return max(1, min(MOST_EXAMPLES, MOST_NUMBERS // max(1, numbers)))

    def __call__(self, inputs: Any, targets: Any) -> Iterator[Weights]:
        """Yield the gradients of some examples after the others, `(n, ...)` for each parameter.

        Args:
            inputs: A tensor `(B, ...)` or a tree of such tensors.
            targets: A tensor `(B, ...)` or a tree of such tensors.
        """
        given = self._value, self.weights, inputs, targets
        if self._vectorized:
            try:
                found = gradients_together(*given)
            except (RuntimeError, TypeError, ValueError):  # the model cannot be vectorized
                self._vectorized = False
            else:
                yield found
                return
        yield from gradients_one_by_one(*given)

    def vectors(self, batch: Batch) -> Iterator[Tensor]:
        """Yield the gradients of a batch's examples, float32 `(n, P)` for P weights in all."""
        rows, size = len(tree_leaves(batch.inputs)[0]), self.block
        for start in range(0, rows, size):
            block = slice(start, start + size)
            for found in self(_rows(batch.inputs, block), _rows(batch.targets, block)):
                yield torch.cat([each.float().flatten(1) for each in found.values()], dim=1)

    def _value(self, weights: Weights, inputs: Any, target: Any) -> Tensor:
        one, target = (tree_map(lambda part: part[None], each) for each in (inputs, target))
        task = {"task_id": self._learner.context.task_id}
        outputs = functional_call(self._learner.model, weights, (one,), task)
        return self._value_of_one(outputs, target)


def mean_over_examples(
    learner: Learner,
    rows: np.ndarray,
    value_of_one: ValueOfOne,
    of_gradient: Callable[[Tensor], Tensor],
    targets_of: Callable[[Any, Any, slice], Any] | None = None,
) -> Weights:
    """Return the mean over examples of a function of each example's gradient, in evaluation mode.

    With weights w of rows it is the weighted mean, sum(w f(gradient)) / sum(w).

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
    gradients = ExampleGradients(learner, value_of_one)
    measured = StoredDataset(new.store, new.rows, *learner.context.functions.test_transforms)
    size = gradients.block
    total = {
        name: torch.zeros_like(value, dtype=torch.float32)
        for name, value in gradients.weights.items()
    }
    divisor = 0.0
    with evaluating(model):
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            batch = learner.moved(Batch.of(measured, rows[block]))
            targets, weights, first = batch.targets, batch.weights, 0
            divisor += len(batch) if weights is None else float(weights.double().sum())
            if targets_of is not None:
                with torch.no_grad():
                    outputs = learner(batch.inputs)
                targets = targets_of(outputs, targets, block)
            for found in gradients(batch.inputs, targets):
                count = len(next(iter(found.values())))
                own, first = slice(first, first + count), first + count
                for name, value in found.items():
                    values = of_gradient(value.float())
                    if weights is not None:
                        values = torch.tensordot(weights[own].float(), values, dims=1)[None]
                    total[name] += values.sum(0)
    bad = [name for name, value in total.items() if not bool(value.isfinite().all())]
    if bad:
        raise NotFiniteImportanceError(bad)
    return {name: value / (divisor or 1) for name, value in total.items()}


def random_rows(learner: Learner, count: int, draws: np.random.Generator) -> np.ndarray:
    """Return random rows of the new data, int64, at most `count`; none of weight 0."""
    rows = draws.permutation(len(learner.new))
    weights = learner.new.weights(rows)
    return (rows if weights is None else rows[weights.numpy() > 0])[:count]


def gradients_together(
    value: Differentiated, weights: Weights, inputs: Any, targets: Any
) -> Weights:
    """Return the gradients of a batch's examples, `(B, ...)` for each parameter, vectorized.

    Args:
        value: The scalar to differentiate.
        weights: Weights by name.
        inputs: A tensor `(B, ...)` or a tree of such tensors.
        targets: A tensor `(B, ...)` or a tree of such tensors.
    """
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch cannot vectorize its other kernels of attention
        return vmap(grad(value), in_dims=(None, 0, 0))(weights, inputs, targets)


def gradients_one_by_one(
    value: Differentiated, weights: Weights, inputs: Any, targets: Any
) -> Iterator[Weights]:
    """Yield the gradients of one example after the other, `(1, ...)` for each parameter."""
    leaves = {name: each.clone().requires_grad_() for name, each in weights.items()}
    for row in range(len(tree_leaves(inputs)[0])):
        one, target = (_rows(part, row) for part in (inputs, targets))
        with torch.enable_grad():
            found = value(leaves, one, target)
        gradients = torch.autograd.grad(found, list(leaves.values()), allow_unused=True)
        yield {
            name: (torch.zeros_like(leaf) if gradient is None else gradient)[None]
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
        }


def _rows(tree: Any, rows: int | slice) -> Any:
    return tree_map(lambda part: part[rows], tree)
