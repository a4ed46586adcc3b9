"""Sums over examples for closed-form heads: exact for any split and order.

Everything is a sum over examples in float64, so batches can come in any order, be added in another
process, and be subtracted again; only the rounding of the last digits depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from renate_stages.errors import InvalidHyperparameterError

STRIPES = 8  # in which the upper triangle of a Gram matrix is summed, 9/16 of the arithmetic


class ClassStatistics:
    """How many examples each class had, the sum of their features, and the Gram matrix of all.

    Args:
        num_classes: K.
        num_features: D.
        gram: Whether the Gram matrix `sum of x x^T` is kept: D (D + 1) / 2 float64 in a state, twice
            that in main memory (D = 2,000: 16 MB and 32 MB; 4,000: 64 and 128; 10,000: 400 and 800).
    """

    def __init__(self, num_classes: int, num_features: int, gram: bool) -> None:
        self.counts = torch.zeros(num_classes, dtype=torch.float64)  # (K,)
        self.sums = torch.zeros(num_classes, num_features, dtype=torch.float64)  # (K, D)
        self._upper: Tensor | None = None  # (D, D), right on and above the diagonal
        if gram:
            self._upper = torch.zeros(num_features, num_features, dtype=torch.float64)

    def add(self, features: Tensor, labels: Tensor, sign: int = 1) -> None:
        """Add a batch, or with `sign=-1` subtract one that was added.

        Args:
            features: `(B, D)` float64.
            labels: `(B,)` int64 in [0, K).
            sign: 1 or -1.
        """
        one = features.new_tensor(sign)
        self.counts.index_add_(0, labels, one.expand(len(labels)))
        self.sums.index_add_(0, labels, features, alpha=sign)
        self.sums[self.counts == 0] = 0  # what rounding left
        if self._upper is None:
            return
        size = -(-features.shape[1] // STRIPES)
        for start in range(0, features.shape[1], size):
            end = start + size
            stripe = features[:, start:end]
            self._upper[:end, start:end].addmm_(features[:, :end].T, stripe, alpha=sign)

    @property
    def gram(self) -> Tensor:
        """The Gram matrix `(D, D)` float64, a copy."""
        assert self._upper is not None
        upper = self._upper.triu()
        return upper + upper.triu(1).T

    @property
    def seen(self) -> Tensor:
        """The classes with examples, int64 `(S,)`."""
        return self.counts.nonzero().flatten()

    @property
    def means(self) -> Tensor:
        """The mean features of the seen classes, `(S, D)` float64."""
        return self.sums[self.seen] / self.counts[self.seen, None]

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it; of the Gram matrix the upper triangle, row by row."""
        found = {"counts": self.counts, "sums": self.sums}
        if self._upper is not None:
            found["gram"] = self._upper[_upper_triangle(len(self._upper))]
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], num_classes: int, gram: bool) -> Self | None:
        """Return what `tensors` returned; None where it is not there, or not enough.

        Args:
            tensors: May hold others too.
            num_classes: K now; classes that are new since have no examples.
            gram: Whether the Gram matrix is needed.
        """
        counts, sums = tensors.get("counts"), tensors.get("sums")
        if counts is None or sums is None or len(counts) > num_classes:
            return None
        if gram and "gram" not in tensors:
            return None
        found = cls(num_classes, sums.shape[1], gram)
        found.counts[: len(counts)] = counts
        found.sums[: len(sums)] = sums
        if found._upper is not None:
            found._upper[_upper_triangle(sums.shape[1])] = tensors["gram"]
        return found


def solve_positive(matrix: Tensor, right: Tensor, name: str, value: object) -> Tensor:
    """Return `matrix^-1 right` by Cholesky's factors.

    Args:
        matrix: Symmetric, positive definite, `(D, D)` float64.
        right: `(D, S)` float64.
        name: The hyperparameter that makes the matrix positive definite.
        value: Its value.

    Raises:
        InvalidHyperparameterError: If it does not.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        needed = "a larger number: with these features the equations have no stable solution"
        raise InvalidHyperparameterError(name, value, needed)
    return torch.cholesky_solve(right, factor)


def _upper_triangle(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu()
