"""Shapley values of examples for a classifier by nearest neighbors."""

from __future__ import annotations

import torch
from torch import Tensor


def knn_shapley(distances: Tensor, same: Tensor, neighbors: int) -> Tensor:
    """Return how much each candidate helps to classify each evaluation example, float64 `(E, N)`.

        v(S) = 1/K * the number of the K candidates in S nearest to j that have the label of j

        s_j(N) = [y_N = y_j] / max(K, N)
        s_j(m) = s_j(m + 1) + ([y_m = y_j] - [y_(m+1) = y_j]) / K * min(K, m) / m

    with the candidates m = 1 ... N in order of their distance from j. These are the exact Shapley
    values of v, the mean contribution of a candidate over all orders in which candidates may come
    (Jia et al., "Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms", VLDB 2019,
    Theorem 1, there for N >= K). Of equal distances, the first candidate counts as nearer.

    Args:
        distances: Distances of E evaluation examples from N candidates, `(E, N)`.
        same: Whether both have the same label, bool `(E, N)`.
        neighbors: K, >= 1.
    """
    order = distances.argsort(dim=1, stable=True)
    match = same.gather(1, order).double()
    number = match.shape[1]
    place = torch.arange(1, number, dtype=torch.float64)
    steps = match.diff(dim=1).neg() / neighbors * place.clamp(max=neighbors) / place
    last = match[:, -1:] / max(neighbors, number)
    values = torch.cat([steps, last], dim=1).flip(1).cumsum(1).flip(1)
    return torch.empty_like(values).scatter(1, order, values)
