"""Methods that keep more than examples from task to task, as plain PyTorch loops.

As in `plain_loops.py`, nothing of renate_stages is used. A `Method` has the whole of a paper's method:
its loss, and what it does before and after a task and a step. `train` is the loop around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from plain_loops import Recipe, Reservoir, Task
from torch import Tensor, nn

NUM_CLASSES = 10


class Method:
    """Fine-tuning, or replay of a reservoir if the recipe has a memory; the base of other methods.

    Args:
        model: Takes `(B, 784)` and ends in a linear layer.
        recipe: Rates, sizes, weights.
        seed: Of the memory, and of what else is drawn.
    """

    fields = NUM_CLASSES  # numbers stored with each example
    online = True  # whether examples enter the memory step by step, or at the end of a task

    def __init__(self, model: nn.Sequential, recipe: Recipe, seed: int) -> None:
        self.model, self.recipe = model, recipe
        self.features, last = model[:-1], model[-1]
        assert isinstance(last, nn.Linear)
        self.last = last
        self.memory = Reservoir(recipe.memory, 784, self.fields, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.old: list[int] = []  # classes of earlier tasks
        self.new: list[int] = []  # classes of this task that are not among them

    @property
    def weights(self) -> list[nn.Parameter]:
        """All that is trained."""
        return list(self.model.parameters())

    def start_task(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Prepare for a task; return the rows to train on."""
        return torch.arange(len(labels))

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, labels and fields of members of the memory; none if it is empty."""
        return self.memory.draw(self.recipe.memory_batch)

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a step, and the fields to store with the new examples."""
        old_inputs, old_labels, _ = self.draw()
        logits = self.model(torch.cat([inputs, old_inputs]))
        loss = F.cross_entropy(logits, torch.cat([labels, old_labels]))
        return loss, logits[: len(labels)]

    def before_step(self) -> None:
        """Change the gradients."""

    def after_step(self) -> None:
        """Use the new weights."""

    def end_task(self, inputs: Tensor, labels: Tensor) -> None:
        """Finish a task."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return scores of the classes, `(B, 10)`."""
        return self.model(inputs)


def train(method: Method, stream: Iterable[Task], seed: int) -> None:
    """Train on one task after the other, one pass each.

    Args:
        method: What is trained.
        stream: The tasks.
        seed: Of the order of examples.
    """
    recipe, order = method.recipe, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(method.weights, lr=recipe.rate)
    for inputs, labels in stream:
        method.new = sorted({*labels.tolist()} - {*method.old})
        rows = method.start_task(inputs, labels)
        steps = -(-len(rows) // recipe.batch)  # equal ones, as in the product
        for part in torch.randperm(len(rows), generator=order).tensor_split(steps):
            batch = inputs[rows[part]], labels[rows[part]]
            loss, fields = method.loss(*batch)
            optimizer.zero_grad()
            loss.backward()
            method.before_step()
            optimizer.step()
            method.after_step()
            if recipe.memory and method.online:
                method.memory.add(*batch, fields.detach())
        method.end_task(inputs, labels)
        if recipe.memory and not method.online:
            method.memory.add(inputs, labels, torch.zeros(len(labels), method.fields))
        method.old = sorted({*method.old, *labels.tolist()})


def copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return copies of tensors, without gradients."""
    return [each.detach().clone() for each in tensors]


def squared_change(
    importance: Sequence[Tensor | float], weights: Sequence[Tensor], anchors: Sequence[Tensor]
) -> Tensor:
    """Return the sum over all weights of importance (theta - theta*)^2."""
    triples = zip(importance, weights, anchors, strict=True)
    return torch.stack([(each * (w - a) ** 2).sum() for each, w, a in triples]).sum()
