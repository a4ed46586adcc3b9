"""Sums over examples for closed-form heads, independent of the order and split of the data.

Everything is a sum over examples in float64. So batches can be added in any order and by any
process, and subtracted again; this changes only the rounding of the last digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor

from renate_stages.errors import InvalidHyperparameterError

STRIPES = 8  # computes the upper triangle in 8 stripes, with 9/16 of the whole matrix's arithmetic


class Counted(NamedTuple):
    """Examples to add to the sums.

    Args:
        features: `(B, F)` float64.
        labels: `(B,)` int64.
        weights: `(B,)` float64, 1 for rows without a weight.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor


class ClassStatistics:
    """Number of examples and sum of features of each class, and the Gram matrix of all examples.

    An example with weight w counts as w examples in all of them: `counts` are sums of weights.

    Args:
        num_classes: K.
        num_features: D.
        gram: Whether to keep the Gram matrix `sum of x x^T`: D (D + 1) / 2 float64 in a state, twice
            as much in main memory (D = 2,000: 16 and 32 MB; 4,000: 64 and 128; 10,000: 400 and 800).
    """

    def __init__(self, num_classes: int, num_features: int, gram: bool) -> None:
        self.counts = torch.zeros(num_classes, dtype=torch.float64)  # (K,)
        self.rows = torch.zeros(num_classes, dtype=torch.float64)  # (K,), whatever their weights
        self.sums = torch.zeros(num_classes, num_features, dtype=torch.float64)  # (K, D)
        self._upper: Tensor | None = None  # (D, D), valid on and above the diagonal
        if gram:
            self._upper = torch.zeros(num_features, num_features, dtype=torch.float64)

    def add(
        self, features: Tensor, labels: Tensor, sign: int = 1, weights: Tensor | None = None
    ) -> None:
        """Add a batch, or with `sign=-1` subtract one that was added before.

        Args:
            features: `(B, D)` float64.
            labels: `(B,)` int64 in [0, K).
            sign: 1 or -1.
            weights: Weights of the rows, `(B,)` float64; None: all count as 1.
        """
        own = features.new_ones(len(labels)) if weights is None else weights
        weighted = features if weights is None else features * own[:, None]
        self.rows.index_add_(0, labels, (own > 0).double(), alpha=sign)
        self.counts.index_add_(0, labels, own, alpha=sign)
        self.sums.index_add_(0, labels, weighted, alpha=sign)
        self.sums[self.rows == 0] = 0  # removes rounding errors
        self.counts[self.rows == 0] = 0
        if self._upper is None:
            return
        size = -(-features.shape[1] // STRIPES)
        for start in range(0, features.shape[1], size):
            end = start + size
            stripe = weighted[:, start:end]
            self._upper[:end, start:end].addmm_(features[:, :end].T, stripe, alpha=sign)

    @property
    def gram(self) -> Tensor:
        """A copy of the Gram matrix, `(D, D)` float64."""
        assert self._upper is not None
        upper = self._upper.triu()
        return upper + upper.triu(1).T

    @property
    def seen(self) -> Tensor:
        """The classes with examples of a weight above 0, int64 `(S,)`."""
        return self.rows.nonzero().flatten()

    @property
    def means(self) -> Tensor:
        """The mean features of the seen classes, `(S, D)` float64."""
        return self.sums[self.seen] / self.counts[self.seen, None]

    def tensors(self) -> dict[str, Tensor]:
        """Return all sums by name; the Gram matrix as its upper triangle, row by row."""
        tensors = {"counts": self.counts, "sums": self.sums}
        if not torch.equal(self.rows, self.counts):
            tensors["rows"] = self.rows
        if self._upper is not None:
            tensors["gram"] = self._upper[_upper_triangle(len(self._upper))]
        return tensors

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], num_classes: int, gram: bool) -> Self | None:
        """Build the statistics from what `tensors()` returned; None if something needed is missing.

        Args:
            tensors: Tensors by name; others than these sums are ignored.
            num_classes: K of the current model; classes added since then have no examples.
            gram: Whether the Gram matrix is needed.
        """
        counts, sums = tensors.get("counts"), tensors.get("sums")
        if counts is None or sums is None or len(counts) > num_classes:
            return None
        if gram and "gram" not in tensors:
            return None
        statistics = cls(num_classes, sums.shape[1], gram)
        statistics.counts[: len(counts)] = counts
        statistics.rows[: len(counts)] = tensors.get("rows", counts)
        statistics.sums[: len(sums)] = sums
        if statistics._upper is not None:
            statistics._upper[_upper_triangle(sums.shape[1])] = tensors["gram"]
        return statistics


def solve_positive(matrix: Tensor, right: Tensor, name: str, value: object) -> Tensor:
    """Return `matrix^-1 right` by Cholesky factorization.

    Args:
        matrix: Symmetric, positive definite, `(D, D)` float64.
        right: `(D, S)` float64.
        name: The hyperparameter that makes the matrix positive definite.
        value: The value of that hyperparameter.

    Raises:
        InvalidHyperparameterError: If the matrix is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        needed = (
            "a larger number, because with these features the equations have no stable solution"
        )
        raise InvalidHyperparameterError(name, value, needed)
    return torch.cholesky_solve(right, factor)


def _upper_triangle(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu()
