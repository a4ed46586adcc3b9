"""Named random generators, derived from the parameter `seed`.

Each name has its own stream, so that a new use of randomness does not change the others. Each update
has its own streams too, so that update 2 does not repeat the draws of update 1.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, like `torch.manual_seed`, but without its cost on CPUs.

    Without an accelerator, `torch.manual_seed` stores a formatted stack trace for each kind of
    accelerator, which takes a millisecond or more, and an update seeds about ten times.
    """
    import torch

    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@dataclass(frozen=True)
class Generators:
    """Creates the random generators of one update.

    Args:
        seed: The `seed` parameter.
        update: Number of the update.
    """

    seed: int
    update: int

    def numpy(self, name: str) -> np.random.Generator:
        """Return a new NumPy generator for a name; the same name always gives the same draws."""
        return np.random.Generator(np.random.PCG64(self._entropy(name)))

    def torch(self, name: str) -> torch.Generator:
        """Return a new torch CPU generator for a name; the same name always gives the same draws."""
        import torch

        return torch.Generator().manual_seed(self.integer(name))

    def integer(self, name: str) -> int:
        """Return a seed in [0, 2^63) for a name."""
        return int(self._entropy(name).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def seed_global(self, name: str) -> None:
        """Seed the global generators for the user's code; our own code never uses them."""
        import random

        value = self.integer(name)
        random.seed(value)
        np.random.seed(value % 2**32)
        seed_torch(value)

    def _entropy(self, name: str) -> np.random.SeedSequence:
        return np.random.SeedSequence([self.seed, self.update, zlib.crc32(name.encode())])
