"""Example data: scikit-learn's handwritten digits, a few classes in each of three updates.

They are read from scikit-learn's data file, because importing scikit-learn takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import io
from functools import cache
from pathlib import Path

import numpy as np

INPUTS = "inputs.npy"
TARGETS = "targets.npy"
CLASSES = {1: range(4), 2: range(4, 7), 3: range(7, 10)}


def digit_files(update: int | None) -> dict[str, bytes]:
    """Return the files of an update: `inputs.npy` (n, 8, 8) uint8, `targets.npy` (n,) int64.

    Args:
        update: 1 (classes 0 to 3), 2 (4 to 6) or 3 (7 to 9); None: all classes.
    """
    digits = read_digits()
    chosen = digits[np.isin(digits[:, -1], range(10) if update is None else CLASSES[update])]
    return {
        INPUTS: _npy(chosen[:, :-1].reshape(-1, 8, 8).astype(np.uint8)),
        TARGETS: _npy(chosen[:, -1].astype(np.int64)),
    }


@cache
def read_digits() -> np.ndarray:
    """Return the digits, (1797, 65) float64: per row 64 pixels from 0 to 16, then the label."""
    scikit_learn = importlib.metadata.distribution("scikit-learn")
    file = scikit_learn.locate_file("sklearn/datasets/data/digits.csv.gz")
    return np.loadtxt(Path(str(file)), delimiter=",")


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
