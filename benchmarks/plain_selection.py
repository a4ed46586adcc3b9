"""ASER and GSS as plain PyTorch loops, from their papers' equations; see `plain_loops.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from plain_loops import CANDIDATES, Recipe, Reservoir, Task, er
from torch import Tensor, nn

NEIGHBORS, EVALUATED = 3, 32  # of ASER: K, and class-balanced examples of the first term
COMPARED = 10  # members that GSS compares the examples of a batch with


def aser(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """ER on the candidates with the largest mean Shapley values (Shim et al. 2021, ASER_mu)."""
    if len(memory) <= recipe.memory_batch:
        return er(model, batch, memory, recipe, task)
    assert isinstance(model, nn.Sequential)
    inputs, labels = batch
    number = min(CANDIDATES * recipe.memory_batch, len(memory))
    places = memory.generator.choice(len(memory), number, replace=False)
    chosen = torch.from_numpy(places)
    old_inputs, old_labels = memory.inputs[chosen], memory.labels[chosen]
    others = torch.from_numpy(balanced(memory, places))
    features = model[:-1]
    with torch.no_grad():
        candidates = features(old_inputs), old_labels
        helps = shapley(features(memory.inputs[others]), memory.labels[others], *candidates)
        disturbs = shapley(features(inputs), labels, *candidates)
    top = (helps.mean(0) - disturbs.mean(0)).topk(recipe.memory_batch).indices
    logits = model(torch.cat([inputs, old_inputs[top]]))
    loss = F.cross_entropy(logits, torch.cat([labels, old_labels[top]]))
    return loss, logits[: len(labels)]


def balanced(memory: Reservoir, candidates: np.ndarray) -> np.ndarray:
    """Return about as many members of each class, which are not candidates."""
    labels = memory.labels[: len(memory)].numpy()
    free = np.isin(np.arange(len(labels)), candidates, invert=True)
    classes = memory.generator.permutation(np.unique(labels))
    drawn = []
    for number, label in enumerate(classes):
        own = np.flatnonzero((labels == label) & free)
        own = own if len(own) else np.flatnonzero(labels == label)
        share = EVALUATED // len(classes) + (number < EVALUATED % len(classes))
        drawn.append(memory.generator.choice(own, min(share, len(own)), replace=False))
    return np.concatenate(drawn)


def shapley(features: Tensor, labels: Tensor, others: Tensor, their_labels: Tensor) -> Tensor:
    """Return Shapley values by the recursion of Jia et al. 2019, from the farthest candidate on."""
    order = torch.cdist(features, others).argsort(dim=1)
    match = (their_labels[order] == labels[:, None]).float()
    number = match.shape[1]
    values = torch.zeros_like(match)
    values[:, -1] = match[:, -1] / number
    for m in range(number - 1, 0, -1):
        change = (match[:, m - 1] - match[:, m]) / NEIGHBORS * min(NEIGHBORS, m) / m
        values[:, m - 1] = values[:, m] + change
    return torch.zeros_like(values).scatter(1, order, values)


class GradientMemory(Reservoir):
    """The memory of GSS, greedy variant (Aljundi et al. 2019, Algorithm 2)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.scores = np.zeros(self.size)
        self.new_scores = np.zeros(0)  # of the batch that is added next

    def add(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> None:
        for row, score in enumerate(self.new_scores):
            place = len(self)
            if place == self.size:
                if score >= 1:
                    continue
                place = self.generator.choice(self.size, p=self.scores / self.scores.sum())
                old = self.scores[place]
                if self.generator.random() >= old / (old + score):
                    continue
            else:
                self.seen += 1
            self.inputs[place], self.labels[place] = inputs[row], labels[row]
            self.scores[place] = score


def gss(
    model: nn.Module, batch: Task, memory: Reservoir, recipe: Recipe, task: int
) -> tuple[Tensor, Tensor]:
    """ER, after 1 + the largest cosine of each new gradient with those of random members."""
    assert isinstance(memory, GradientMemory)
    if len(memory):
        own = gradients(model, *batch)
        cosines = own @ gradients(model, *memory.draw(COMPARED)[:2]).T
    else:
        cosines = torch.zeros(len(batch[0]), 1)
    memory.new_scores = 1 + cosines.amax(1).clamp(min=-0.999).double().numpy()
    return er(model, batch, memory, recipe, task)


def gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each example's loss, scaled to length 1, `(n, P)`."""
    weights = list(model.parameters())
    vectors = []
    for row in range(len(labels)):
        loss = F.cross_entropy(model(inputs[row : row + 1]), labels[row : row + 1])
        vectors.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    return F.normalize(torch.stack(vectors), dim=1)
