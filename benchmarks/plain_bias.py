"""WA, BiC and LUCIR, which reduce the preference for new classes, as plain PyTorch loops."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from plain_methods import Method
from torch import Tensor, nn

HOLDOUT = 0.1  # of the examples of an old class in memory, which BiC holds out
SPREAD = (0.5, 5.0)  # standard deviations of the priors of log(alpha) and beta
MARGIN, HARDEST = 0.5, 2  # of LUCIR


class DistilledReplay(Method):
    """(1 - w) l + w KL(parent || model) over the old classes (Wu et al. 2019, eq. 1 to 3).

    Both over new and remembered examples; w is the share of old classes, alpha the temperature.
    """

    def start_task(self, inputs: Tensor, labels: Tensor) -> Tensor:
        self.parent = copy.deepcopy(self.model).requires_grad_(False)
        return super().start_task(inputs, labels)

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        old_inputs, old_labels, _ = self.draw()
        everything = torch.cat([inputs, old_inputs])
        logits = self.model(everything)
        loss = F.cross_entropy(logits, torch.cat([labels, old_labels]))
        if self.old:
            student, teacher = (
                (each[:, self.old] / self.recipe.alpha).log_softmax(1)
                for each in (logits, self.parent(everything))
            )
            divergence = (teacher.exp() * (teacher - student)).sum(1).mean()
            share = len(self.old) / (len(self.old) + len(self.new))
            loss = (1 - share) * loss + share * divergence
        return loss, logits[: len(labels)]


class WA(DistilledReplay):
    """Then new rows of the last layer get the mean length of old ones (Zhao et al. 2020, eq. 3).

    Rows that are shorter are not lengthened: without that the model prefers new classes here.
    """

    def end_task(self, inputs: Tensor, labels: Tensor) -> None:
        if self.old:
            weight = self.last.weight.data
            lengths = weight.norm(dim=1)
            weight[self.new] *= min(1.0, float(lengths[self.old].mean() / lengths[self.new].mean()))


class BiC(DistilledReplay):
    """Then logits of new classes become alpha o + beta, fitted on held-out examples (eq. 4).

    Held out are a tenth of an old class's examples in memory, and as many of each new class. The
    cross-entropy weights classes equally, and alpha and beta have a prior, as in ours.
    """

    online = False

    def start_task(self, inputs: Tensor, labels: Tensor) -> Tensor:
        rows, self.held = super().start_task(inputs, labels), None
        self.replayed = np.arange(len(self.memory))
        if not self.old:
            return rows
        kept = self.memory.labels[: len(self.memory)]
        counts = [int((kept == each).sum()) for each in self.old]
        number = max(1, round(HOLDOUT * float(np.mean(counts))))
        old = [self._some(kept == each, number) for each in self.old]
        new = [self._some(labels == each, number) for each in self.new]
        old_rows, new_rows = torch.cat(old), torch.cat(new)
        self.held = (
            torch.cat([self.memory.inputs[old_rows], inputs[new_rows]]),
            torch.cat([kept[old_rows], labels[new_rows]]),
        )
        self.replayed = np.setdiff1d(self.replayed, old_rows.numpy())
        return rows[~torch.isin(rows, new_rows)]

    def _some(self, chosen: Tensor, number: int) -> Tensor:
        rows = chosen.nonzero().flatten()
        shuffled = torch.randperm(len(rows), generator=self.generator)
        return rows[shuffled[: min(number, len(rows) // 2)]]

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        size = min(self.recipe.memory_batch, len(self.replayed))
        rows = self.memory.generator.choice(self.replayed, size, replace=False)
        return self.memory.inputs[rows], self.memory.labels[rows], self.memory.logits[rows]

    def end_task(self, inputs: Tensor, labels: Tensor) -> None:
        if self.held is None:
            return
        held, targets = self.held
        log_alpha, beta = self._fitted(self.model(held).detach().double().numpy(), targets.numpy())
        bias = self.last.bias.data
        self.last.weight.data[self.new] *= math.exp(log_alpha)
        bias[self.new] = math.exp(log_alpha) * bias[self.new] + beta

    def _fitted(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        from scipy.optimize import minimize
        from scipy.special import logsumexp

        seen = [*self.old, *self.new]
        weights = 1 / np.bincount(labels, minlength=10)[labels]
        weights /= weights.sum()

        def loss(values: np.ndarray) -> float:
            corrected = logits.copy()
            corrected[:, self.new] = np.exp(values[0]) * logits[:, self.new] + values[1]
            true = corrected[np.arange(len(labels)), labels]
            entropy = (weights * (logsumexp(corrected[:, seen], axis=1) - true)).sum()
            return entropy + ((values / SPREAD) ** 2).sum() / (2 * len(labels))

        return minimize(loss, np.zeros(2), method="BFGS").x


class LUCIR(Method):
    """l + w (1 - cos(f*, f)) + margin ranking (Hou et al. 2019, eq. 6 to 9), with a linear head.

    f are the inputs of the last layer, alpha is lambda_base, and old rows of the last layer stay.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.parent: nn.Module | None = None

    def start_task(self, inputs: Tensor, labels: Tensor) -> Tensor:
        if self.old:
            self.parent = copy.deepcopy(self.features).requires_grad_(False)
        return super().start_task(inputs, labels)

    def loss(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        old_inputs, old_labels, _ = self.draw()
        everything = torch.cat([inputs, old_inputs])
        features = self.features(everything)
        logits = self.last(features)
        loss = F.cross_entropy(logits, torch.cat([labels, old_labels]))
        if self.parent is not None:
            weight = self.recipe.alpha * math.sqrt(len(self.old) / len(self.new))
            loss = (
                loss + weight * (1 - F.cosine_similarity(features, self.parent(everything))).mean()
            )
            loss = loss + self._ranking(features[len(labels) :], old_labels)
        return loss, logits[: len(labels)]

    def _ranking(self, features: Tensor, labels: Tensor) -> Tensor:
        terms = []
        for feature, label in zip(features, labels.tolist(), strict=True):
            cosines = F.cosine_similarity(feature[None], self.last.weight)
            hardest = cosines[self.new].topk(min(HARDEST, len(self.new))).values
            own = (MARGIN - cosines[label] + hardest).clamp(min=0).sum()
            terms.append(own if label in self.old else 0 * own)
        return torch.stack(terms).mean()

    def before_step(self) -> None:
        if self.old:
            for each in self.last.parameters():
                assert each.grad is not None
                each.grad[self.old] = 0
