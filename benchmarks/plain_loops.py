"""Replay methods as plain PyTorch loops, from their papers' equations: what learners are held to.

Nothing of renate_stages is used. Tensors are in memory, the model is an `nn.Sequential`, the memory
a tensor; a stream is one pass, and an example is offered to the memory in the step that learns from
it, with the logits of that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Task = tuple[Tensor, Tensor]  # inputs (n, 784) float32 in [0, 1], labels (n,) int64


CANDIDATES = 5  # of MIR, per replayed example


@dataclass(frozen=True)
class Recipe:
    """Settings of one row of the table.

    Args:
        rate: Learning rate of SGD.
        batch: New examples a step.
        memory: Most examples kept; 0 keeps none.
        memory_batch: Examples of a draw.
        alpha: Weight of DER's logit term, or of L2-SP's penalty.
        beta: Weight of DER++'s label term.
    """

    rate: float
    batch: int = 10
    memory: int = 0
    memory_batch: int = 10
    alpha: float = 0.0
    beta: float = 0.0


class Reservoir:
    """Algorithm R of Vitter, "Random Sampling with a Reservoir", 1985; draws have no repeats."""

    def __init__(self, size: int, num_inputs: int, num_classes: int, seed: int) -> None:
        self.size, self.seen = size, 0
        self.inputs = torch.zeros(size, num_inputs)
        self.labels = torch.zeros(size, dtype=torch.int64)
        self.logits = torch.zeros(size, num_classes)
        self.generator = np.random.default_rng(seed)

    def __len__(self) -> int:
        return min(self.size, self.seen)

    def add(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Offer a batch, one example after the other."""
        counts = np.arange(self.seen, self.seen + len(labels))
        places = np.where(counts < self.size, counts, self.generator.integers(0, counts + 1))
        for row in np.flatnonzero(places < self.size):
            place = places[row]
            self.inputs[place], self.labels[place] = inputs[row], labels[row]
            self.logits[place] = logits[row]
        self.seen += len(labels)

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, labels and logits of random members."""
        size = min(size, len(self))
        rows = torch.from_numpy(self.generator.choice(len(self), size, replace=False))
        return self.inputs[rows], self.labels[rows], self.logits[rows]


Loss = Callable[[nn.Module, Task, Reservoir, Recipe, int], tuple[Tensor, Tensor]]


def finetuning(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """l(f(x), y). Returns the loss, and the logits of the new batch, as each of these does."""
    inputs, labels = batch
    logits = model(inputs)
    return F.cross_entropy(logits, labels), logits


def er(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """Mean of l over the union of the two batches (Chaudhry et al. 2019, Algorithm 1)."""
    if not len(memory):
        return finetuning(model, batch, memory, recipe, task)
    inputs, labels = batch
    old_inputs, old_labels, _ = memory.draw(recipe.memory_batch)
    logits = model(torch.cat([inputs, old_inputs]))
    loss = F.cross_entropy(logits, torch.cat([labels, old_labels]))
    return loss, logits[: len(labels)]


def der(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """l + alpha mean((f(x') - z')^2) + beta l(f(x''), y'') (Buzzega et al. 2020, eq. 5 and 6)."""
    loss, logits = finetuning(model, batch, memory, recipe, task)
    if len(memory):
        old_inputs, _, old_logits = memory.draw(recipe.memory_batch)
        loss = loss + recipe.alpha * F.mse_loss(model(old_inputs), old_logits)
        if recipe.beta:
            old_inputs, old_labels, _ = memory.draw(recipe.memory_batch)
            loss = loss + recipe.beta * F.cross_entropy(model(old_inputs), old_labels)
    return loss, logits


def er_ace(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """l(f(x), y; classes of the batch) + l(f(x'), y') (Caccia et al. 2022, eq. 4).

    New examples are not restricted to their classes in the first task, as in the authors' code.
    """
    inputs, labels = batch
    logits = model(inputs)
    scores = logits
    if task:
        absent = torch.ones(logits.shape[1], dtype=torch.bool)
        absent[labels] = False
        scores = logits.masked_fill(absent, -1e9)
    loss = F.cross_entropy(scores, labels)
    if len(memory):
        old_inputs, old_labels, _ = memory.draw(recipe.memory_batch)
        loss = loss + F.cross_entropy(model(old_inputs), old_labels)
    return loss, logits


def a_gem(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """A loss whose gradient is g - (g . r / r . r) r if g . r < 0 (Chaudhry et al. 2019, eq. 11)."""
    loss, logits = finetuning(model, batch, memory, recipe, task)
    if not len(memory):
        return loss, logits
    old_inputs, old_labels, _ = memory.draw(recipe.memory_batch)
    old_loss = F.cross_entropy(model(old_inputs), old_labels)
    weights = list(model.parameters())
    new, old = (
        torch.cat([g.flatten() for g in torch.autograd.grad(each, weights, retain_graph=True)])
        for each in (loss, old_loss)
    )
    factor = min(0.0, float(new @ old)) / float(old @ old)
    return loss - factor * old_loss, logits


def mir(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """ER on the candidates whose loss a virtual step raises most (Aljundi et al. 2019, Algorithm 1)."""
    if len(memory) <= recipe.memory_batch:
        return er(model, batch, memory, recipe, task)
    inputs, labels = batch
    names, weights = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(F.cross_entropy(model(inputs), labels), weights)
    moved = {n: w - recipe.rate * g for n, w, g in zip(names, weights, gradients, strict=True)}
    old_inputs, old_labels, _ = memory.draw(CANDIDATES * recipe.memory_batch)
    with torch.no_grad():
        after = torch.func.functional_call(model, moved, old_inputs)
        before, after = (
            F.cross_entropy(each, old_labels, reduction="none")
            for each in (model(old_inputs), after)
        )
    top = (after - before).topk(recipe.memory_batch).indices
    logits = model(torch.cat([inputs, old_inputs[top]]))
    loss = F.cross_entropy(logits, torch.cat([labels, old_labels[top]]))
    return loss, logits[: len(labels)]


def l2_sp(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """l + alpha / 2 ||theta - theta_parent||^2 (Li et al. 2018), without a parent in the first task."""
    if task != vars(model).get("anchored_task", 0):
        anchors = [each.detach().clone() for each in model.parameters()]
        vars(model).update(anchored_task=task, anchors=anchors)
    loss, logits = finetuning(model, batch, memory, recipe, task)
    pairs = zip(model.parameters(), vars(model).get("anchors", model.parameters()), strict=True)
    distances = [((each - anchor) ** 2).sum() for each, anchor in pairs]
    return loss + recipe.alpha / 2 * torch.stack(distances).sum(), logits


def train(
    model: nn.Module,
    loss_of: Loss,
    stream: Iterable[Task],
    recipe: Recipe,
    seed: int,
    kind: type[Reservoir] = Reservoir,
) -> None:
    """Train a model on one task after the other, one pass each.

    Args:
        model: Takes `(B, 784)`.
        loss_of: One of the losses above.
        stream: The tasks.
        recipe: Rates, sizes, weights.
        seed: Of the order of examples and of the memory.
        kind: Class of the memory.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.rate)
    order = torch.Generator().manual_seed(seed)
    memory: Reservoir | None = None
    for number, (inputs, labels) in enumerate(stream):
        if memory is None:
            memory = kind(recipe.memory, inputs.shape[1], 10, seed)
        steps = -(-len(labels) // recipe.batch)  # equal ones, as in the product
        for rows in torch.randperm(len(labels), generator=order).tensor_split(steps):
            batch = inputs[rows], labels[rows]
            loss, logits = loss_of(model, batch, memory, recipe, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if recipe.memory:
                memory.add(*batch, logits.detach())


def ridge_on_random_features(
    stream: Iterable[Task], num_features: int, ridge: float, seed: int
) -> Callable[[Tensor], Tensor]:
    """Return a classifier on relu(x W), W random, by ridge regression on one-hot labels.

        G = sum of h h^T,  Q = sum of h y^T,  W = (G + lambda I)^-1 Q    (McDonnell et al. 2023, eq. 5)

    Args:
        stream: The tasks; of each only the sums stay.
        num_features: Columns of W.
        ridge: lambda as a share of the mean of G's diagonal.
        seed: Of W.
    """
    projection: Tensor | None = None
    gram, sums = torch.zeros(num_features, num_features), torch.zeros(num_features, 10)
    for inputs, labels in stream:
        if projection is None:
            generator = torch.Generator().manual_seed(seed)
            projection = torch.randn(inputs.shape[1], num_features, generator=generator)
        for rows in torch.arange(len(labels)).split(4096):
            hidden = torch.relu(inputs[rows] @ projection)
            gram += hidden.T @ hidden
            sums += hidden.T @ F.one_hot(labels[rows], 10).float()
    assert projection is not None
    matrix = projection
    gram = gram.double()
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, sums.double())
    return lambda inputs: torch.relu(inputs @ matrix) @ weights.float()
