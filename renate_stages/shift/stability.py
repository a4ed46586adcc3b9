"""Population stability index (PSI) of a feature.

    PSI = Σ (q_k - p_k) ln(q_k / p_k)

over cells k, where p and q are the shares of reference and new rows. It is the symmetric
Kullback-Leibler divergence of both histograms. By a common rule of thumb, a feature is stable below 0.1
and has changed much above 0.25. It has no p-value, and grows if there are few rows: with K cells it is
about (K - 1) (1/n + 1/m) where nothing has changed.
"""

from __future__ import annotations

import numpy as np

from renate_stages.shift.categories import cells_of

BINS = 10


def stability_index(reference: np.ndarray, new: np.ndarray, *, categorical: bool) -> float:
    """Return the PSI of one feature, >= 0.

    The cells of a number are the deciles of the reference; those of a category are the categories, where
    rare ones share a cell (`categories.cells_of`). Missing values (NaN) have a cell of their own if there
    are any. Half a row is added to each cell, so that an empty one gives a finite value.

    Args:
        reference: Values of reference rows `(n,)`.
        new: Values of new rows `(m,)`.
        categorical: Whether values are codes of categories.
    """
    cells = cells_of(reference, new) if categorical else _deciles(reference, new)
    n = len(reference)
    width = int(cells.max()) + 1
    counts = np.stack([np.bincount(each, minlength=width) for each in (cells[:n], cells[n:])])
    counts = counts[:, counts.sum(axis=0) > 0] + 0.5
    old, other = counts / counts.sum(axis=1, keepdims=True)
    return float(((other - old) * np.log(other / old)).sum())


def _deciles(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the bin of each row of both samples; the last bin is that of missing values."""
    both = np.concatenate([reference, new])
    known = reference[~np.isnan(reference)]
    edges = np.empty(0)
    if len(known):  # method "lower" takes values of the data, also if some are infinite
        edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS, method="lower"))
    return np.where(np.isnan(both), len(edges) + 1, np.searchsorted(edges, both, side="left"))
