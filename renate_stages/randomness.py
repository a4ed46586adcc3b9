"""Named random generators, derived from the parameter `seed`.

Each use has its own stream, so that adding one changes no other, and each update its own, so that
update 2 does not repeat the draws of update 1.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Generators:
    """Makes the generators of one update.

    Args:
        seed: The `seed` parameter.
        update: Number of the update.
    """

    seed: int
    update: int

    def numpy(self, name: str) -> np.random.Generator:
        """Return a new NumPy generator for one named use, always with the same draws."""
        return np.random.Generator(np.random.PCG64(self._entropy(name)))

    def torch(self, name: str) -> torch.Generator:
        """Return a new torch generator (CPU) for one named use, always with the same draws."""
        import torch

        return torch.Generator().manual_seed(self.integer(name))

    def integer(self, name: str) -> int:
        """Return a seed in [0, 2^63) for one named use."""
        return int(self._entropy(name).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def seed_global(self, name: str) -> None:
        """Seed the global generators, which the user's code may read and ours never does."""
        import random

        import torch

        value = self.integer(name)
        random.seed(value)
        np.random.seed(value % 2**32)
        torch.manual_seed(value)

    def _entropy(self, name: str) -> np.random.SeedSequence:
        return np.random.SeedSequence([self.seed, self.update, zlib.crc32(name.encode())])
