"""Sums over a Gaussian kernel matrix, computed in blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TILE = 1024
MEDIAN_ROWS = 1000
CENTRE = math.exp(-0.5)  # the kernel at the median distance


def gaussian(left: np.ndarray, right: np.ndarray, bandwidth: float) -> np.ndarray:
    """Return exp(-|x - y|² / 2ℓ²) for all pairs, float64 `(n, m)`."""
    values = squared_distances(left, right)
    values *= -0.5 / bandwidth**2
    return np.exp(values, out=values)


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return |x - y|² for all pairs, float64 `(n, m)`."""
    values = left @ right.T
    values *= -2
    values += np.einsum("nd,nd->n", left, left)[:, None]
    values += np.einsum("md,md->m", right, right)
    return np.maximum(values, 0, out=values)


def median_heuristic(
    rows: np.ndarray, generator: np.random.Generator, most: int = MEDIAN_ROWS
) -> float:
    """Return the median distance between two rows (Gretton et al. 2012, section 8), > 0.

    Args:
        rows: Both samples together, float64 `(n, d)`; the result must not depend on the split.
        generator: Draws the rows to compare.
        most: Maximum number of rows to compare.
    """
    if len(rows) > most:
        rows = rows[np.sort(generator.choice(len(rows), most, replace=False))]
    distances = np.sqrt(squared_distances(rows, rows)[np.triu_indices(len(rows), 1)])
    median = float(np.median(distances))
    if median > 0:
        return median
    apart = distances[distances > 0]  # more than half of the pairs are equal
    return float(apart.mean()) if len(apart) else 1.0


@dataclass(frozen=True)
class SplitSums:
    """Sums of the kernel, without its diagonal, over the two parts of many splits.

    Args:
        first: Sum over pairs within the first part, float64 `(splits,)`.
        second: Sum over pairs within the second part, float64 `(splits,)`.
        between: Sum over pairs with one row of each part, float64 `(splits,)`.
    """

    first: np.ndarray
    second: np.ndarray
    between: np.ndarray


def split_sums(
    rows: np.ndarray, splits: np.ndarray, bandwidth: float, tile: int = TILE
) -> SplitSums:
    """Sum a Gaussian kernel over the parts of each split.

    The kernel matrix is computed in tiles, and each tile is multiplied by all splits at once. Only
    one of two mirrored tiles is computed. With z the indicator of the first part and K the kernel
    matrix, zᵀKz and K1 give all three sums. In addition to `rows` and `splits`, the function needs
    8 bytes for each of 3 · tile² and 2 · tile · splits numbers: 40 MB at the defaults of 1,024 and
    1,000, for any number of rows. `splits` needs one byte per row and split.

    With more than one tile, the product is in single precision. It uses the kernel minus its
    typical value, which keeps the error of a mean over n² pairs below about 1e-8 / √n. Everything
    else is in double precision.

    Args:
        rows: Rows, float64 `(N, d)`.
        splits: Rows of the first part, equally many in each split, bool `(splits, N)`.
        bandwidth: ℓ of the kernel, > 0.
        tile: Number of rows and columns of a tile.
    """
    first = int(splits[0].sum())
    if 2 * first > len(rows):  # a smaller first part loses fewer digits
        flipped = split_sums(rows, ~splits, bandwidth, tile)
        return SplitSums(flipped.second, flipped.first, flipped.between)
    precision = np.float64 if len(rows) <= tile else np.float32
    within, of_row = np.zeros(len(splits)), np.zeros(len(rows))
    blocks = [slice(start, start + tile) for start in range(0, len(rows), tile)]
    for place, left in enumerate(blocks):
        marks = splits[:, left].astype(precision)
        for right in blocks[place:]:
            kernel = gaussian(rows[left], rows[right], bandwidth)
            mirrored = left is not right
            if not mirrored:
                np.fill_diagonal(kernel, 0)
            of_row[left] += kernel.sum(axis=1)
            if mirrored:
                of_row[right] += kernel.sum(axis=0)
            kernel -= CENTRE
            products = marks @ kernel.astype(precision, copy=False)  # (splits, columns)
            products *= splits[:, right]
            within += (1 + mirrored) * products.sum(axis=1, dtype=np.float64)
    within += CENTRE * first**2  # includes the diagonal, which was 0 - CENTRE
    first_to_all = np.zeros(len(splits))
    for block in blocks:
        first_to_all += splits[:, block] @ of_row[block]
    second = of_row.sum() - 2 * first_to_all + within
    return SplitSums(within, second, first_to_all - within)
