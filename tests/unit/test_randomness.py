"""Named random generators: each name, update and seed has its own, fixed stream."""

from __future__ import annotations

import random

import numpy as np
import torch

from renate_stages.randomness import Generators, seed_torch

NAMES = ("batches", "memory", "model", "replay", "split", "test split", "training", "val split")


def test_every_name_update_and_seed_has_its_own_stream():
    seeds = {
        Generators(seed, update).integer(name)
        for seed in range(5)
        for update in range(5)
        for name in NAMES
    }
    assert len(seeds) == 5 * 5 * len(NAMES)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_keep_their_values_across_releases():
    """Existing states depend on these values: other values would change every result."""
    assert Generators(0, 1).integer("memory") == 3325982161147664970
    assert Generators(3, 2).integer("batches") == 3237129139736568860
    raw = Generators(0, 1).numpy("memory").bit_generator.random_raw(2)
    assert raw.tolist() == [9431247635590768799, 6805876249680755969]


def test_requesting_a_generator_again_restarts_its_stream():
    generators = Generators(0, 1)
    assert generators.numpy("a").random() == generators.numpy("a").random()
    draws = [torch.rand(3, generator=generators.torch("a")).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


def test_global_generators_are_seeded_by_name_for_user_code():
    def draws(generators: Generators, name: str) -> tuple:
        generators.seed_global(name)
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    first = draws(Generators(2**32 - 1, 1), "training")
    assert first == draws(Generators(2**32 - 1, 1), "training")
    others = [draws(Generators(2**32 - 1, 1), "model"), draws(Generators(0, 1), "training")]
    assert all(a != b for other in others for a, b in zip(first, other, strict=True))


def test_creating_generators_does_not_change_the_global_generators():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    Generators(0, 1).numpy("a").random(9)
    torch.rand(9, generator=Generators(0, 1).torch("a"))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_torch_is_seeded_like_by_its_manual_seed():
    torch.manual_seed(2**63 - 7)
    expected = torch.rand(3).tolist()
    seed_torch(2**63 - 7)
    assert torch.rand(3).tolist() == expected
