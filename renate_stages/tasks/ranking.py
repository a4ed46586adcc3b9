"""Learning to rank: scores for the items of a list, such as the documents of a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.tasks.task import IGNORED, Task, outline

RELEVANCE = f"numbers >= 0, one for each item of a row, (B, L), or {IGNORED} for items to ignore"


class Ranking(Task):
    """Targets are relevances `(B, L)`, numbers >= 0 or -100 (ignored); outputs are scores `(B, L)`.

    A row is a list of L items. The default loss is the listwise softmax cross-entropy

        - sum over items of p_i log softmax(s)_i,   p_i = y_i / sum of y

    (Bruch et al., "An Analysis of the Softmax Cross Entropy Loss for Learning-to-Rank with Binary
    Relevance", ICTIR 2019, eq. 1). A row without a relevant item counts in no loss and no metric.
    """

    name = "ranking"
    ignores_shifts = True
    has_padding = True

    def check(
        self, outputs: Any, targets: Any, first_row: int = 0, where: str = "the data"
    ) -> None:
        expected = "a score for each item, (B, L), a float tensor"
        self.require_tensor_outputs(outputs, expected)
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise self.refuse_outputs(outputs, expected)
        if not isinstance(targets, Tensor) or targets.shape != outputs.shape:
            raise self.refuse_targets(outline(targets), RELEVANCE, where)
        allowed = (targets >= 0) & targets.isfinite() | (targets == IGNORED)
        self.require_values(targets, allowed, RELEVANCE, first_row, where)

    def fitted(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return targets for all items of the outputs; those added as padding are ignored."""
        return F.pad(targets, (0, outputs.shape[1] - targets.shape[1]), value=IGNORED)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the softmax cross-entropy of each list, 0 for lists without a relevant item."""
        counted = targets != IGNORED
        wanted = torch.where(counted, targets, 0).to(outputs.dtype)
        wanted = wanted / wanted.sum(1, keepdim=True).clamp(min=torch.finfo(wanted.dtype).tiny)
        logs = _without_padding(outputs, targets).log_softmax(1)
        return -(wanted * torch.where(counted, logs, 0)).sum(1)

    def weights(self, targets: Tensor) -> Tensor:
        """Return 1 for lists with a relevant item, otherwise 0."""
        return (targets > 0).any(1).float()

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return `ndcg`: normalised discounted cumulative gain over all items of a list."""
        counts = self.weights(targets)
        return {"ndcg": (ndcg(outputs, targets) * counts, counts)}

    def distillation(
        self,
        outputs: Tensor,
        taught: Tensor,
        temperature: float,
        classes: Sequence[int] = (),
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return T^2 KL of the softmax distributions over the items, mean over lists."""
        student, teacher = (
            _without_padding(each.float() / temperature, targets).log_softmax(1)
            for each in (outputs, taught)
        )
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def sampled(self, outputs: Tensor, draws: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return one relevant item for each list, drawn from the softmax, `(B, L)` of 0 and 1."""
        up_to = _without_padding(outputs.double(), targets).softmax(1).cumsum(1)
        drawn = (up_to <= draws[:, :1].to(outputs.device)).sum(1)
        items = F.one_hot(drawn.clamp(max=outputs.shape[1] - 1), outputs.shape[1])
        return items if targets is None else items.masked_fill(targets == IGNORED, IGNORED)

    def negative_log_likelihood(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return -log softmax(s) of the relevant item."""
        return Ranking.loss(self, outputs.float(), targets)


class PairwiseRanking(Ranking):
    """Ranking with a pairwise loss: the mean over pairs with y_i > y_j of log(1 + exp(s_j - s_i)).

    Burges et al., "Learning to Rank using Gradient Descent", ICML 2005, eq. 3 with target
    probability 1. A row whose items are all equally relevant counts in no loss.
    """

    name = "ranking_pairwise"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the pairs of each list, 0 for lists without a pair."""
        pairs = _pairs(targets)
        losses = F.softplus(outputs[:, None, :] - outputs[:, :, None])  # (B, i, j): s_j - s_i
        return (losses * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)

    def weights(self, targets: Tensor) -> Tensor:
        """Return 1 for lists with items of different relevance, otherwise 0."""
        return _pairs(targets).flatten(1).any(1).float()


def _without_padding(scores: Tensor, targets: Tensor | None) -> Tensor:
    """Return scores in which ignored items have a probability of 0."""
    lowest = torch.finfo(scores.dtype).min
    return scores if targets is None else scores.masked_fill(targets == IGNORED, lowest)


def _pairs(targets: Tensor) -> Tensor:
    """Return which item i is more relevant than item j, bool `(B, L, L)`."""
    counted = targets != IGNORED
    both = counted[:, :, None] & counted[:, None, :]
    return both & (targets[:, :, None] > targets[:, None, :])


def ndcg(scores: Tensor, relevance: Tensor) -> Tensor:
    """Return the normalised discounted cumulative gain of each list, `(B,)` float64.

        DCG = sum over items of y_i / log2(1 + rank_i),  divided by the DCG of the best order

    Jarvelin & Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002. Items with
    equal scores share the mean discount of their ranks. 0 if no item is relevant.

    Args:
        scores: `(B, L)`, any float dtype.
        relevance: `(B, L)`, numbers >= 0, or -100 for items to ignore.
    """
    counted = relevance != IGNORED
    gains = torch.where(counted, relevance, 0).double()
    ordered = scores.double().masked_fill(~counted, -torch.inf)
    best = gains.masked_fill(~counted, -torch.inf)
    ideal = (gains * _discounts(best, counted)).sum(1)
    found = (gains * _discounts(ordered, counted)).sum(1)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


def _discounts(values: Tensor, counted: Tensor) -> Tensor:
    """Return the discount of each item ranked by descending values, ties averaged, `(B, L)`."""
    ranks = torch.arange(values.shape[1], device=values.device, dtype=torch.float64)
    up_to = F.pad((1 / torch.log2(ranks + 2)).cumsum(0), (1, 0))  # (L + 1,)
    pairs = counted[:, None, :] & counted[:, :, None]
    above = ((values[:, None, :] > values[:, :, None]) & pairs).sum(2)
    until = ((values[:, None, :] >= values[:, :, None]) & pairs).sum(2)
    return (up_to[until] - up_to[above]) / (until - above).clamp(min=1)
