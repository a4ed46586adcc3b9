"""Test of how many words of new texts the reference does not have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from renate_stages.errors import UncomparableRowsError
from renate_stages.shift.detector import LEAST_ROWS, Detector, ShiftResult

if TYPE_CHECKING:
    from scipy.sparse import csr_array

WORD = re.compile(r"\w+")
BLOCK = 50  # permutations to count at once


@dataclass
class NewWords(Detector):
    """Compares the share of words in new texts that do not occur in the reference.

    Even texts of the same kind have new words, so the share is compared with that of random splits of
    both samples together: p = (b + 1) / (permutations + 1), where b is the number of splits whose
    second part has at least as large a share of words that are not in the first part. Words are runs of
    letters and digits, in lower case; each occurrence counts.

    Statistic: the share. Effect size: the share minus its mean over the splits, at least 0, in [0, 1].

    Args:
        permutations: Number of random splits, >= 1.
    """

    name: ClassVar[str] = "words"
    permutations: int = 1000

    def fit(self, reference: np.ndarray) -> Self:
        """Store the reference's texts, an array of str `(n,)`."""
        encoded = [text.encode() for text in _as_texts(reference)]
        self.fitted = {
            "bytes": np.frombuffer(b"".join(encoded) or b" ", dtype=np.uint8),
            "lengths": np.array([len(text) for text in encoded]),
        }
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare new texts, an array of str `(m,)`, with the reference."""
        ends = np.cumsum(self.kept("lengths")).tolist()
        everything = self.kept("bytes").tobytes()
        starts = [0, *ends[:-1]]
        old = [everything[a:b].decode() for a, b in zip(starts, ends, strict=True)]
        texts = [*old, *_as_texts(new)]
        counts, n, total = _word_counts(texts), len(old), len(texts)
        real = np.zeros((1, total), dtype=np.float32)
        real[0, :n] = 1
        share = float(_unseen(counts, real)[0])
        shares = []
        for start in range(0, self.permutations, BLOCK):
            splits = np.zeros((min(BLOCK, self.permutations - start), total), dtype=np.float32)
            for split in splits:
                split[generator.choice(total, n, replace=False, shuffle=False)] = 1
            shares.append(_unseen(counts, splits))
        drawn = np.concatenate(shares)
        p_value = (int((drawn >= share - 1e-12).sum()) + 1) / (self.permutations + 1)
        return ShiftResult(self.name, share, p_value, max(0.0, share - float(drawn.mean())))


def _as_texts(given: np.ndarray) -> list[str]:
    """Return texts as a list.

    Raises:
        UncomparableRowsError: If they are not texts, or too few.
    """
    texts = np.asarray(given)
    if texts.ndim != 1 or len(texts) < LEAST_ROWS or not all(isinstance(t, str) for t in texts):
        raise UncomparableRowsError(
            f"found an array of shape {texts.shape} and type {texts.dtype}, expected texts (n,) with "
            f"n >= {LEAST_ROWS}",
            "pass one text for each example, and compare more examples",
        )
    return texts.tolist()


def _word_counts(texts: Sequence[str]) -> csr_array:
    """Return how often each word occurs in each text, float32 `(texts, words)`."""
    from scipy.sparse import csr_array

    numbers: dict[str, int] = {}
    columns, offsets = [], [0]
    for text in texts:
        words = WORD.findall(text.lower())
        columns += [numbers.setdefault(word, len(numbers)) for word in words]
        offsets.append(len(columns))
    shape = (len(texts), max(len(numbers), 1))
    counts = csr_array((np.ones(len(columns), np.float32), columns, offsets), shape=shape)
    counts.sum_duplicates()
    return counts


def _unseen(counts: csr_array, splits: np.ndarray) -> np.ndarray:
    """Return the share of words of each split's second part that are not in its first, `(splits,)`."""
    first = (counts.T @ splits.T).T  # (splits, words): occurrences in the first part
    second = np.asarray(counts.sum(axis=0)) - first
    unseen = np.where(first == 0, second, 0).sum(axis=1, dtype=np.float64)
    return unseen / np.maximum(second.sum(axis=1, dtype=np.float64), 1)
