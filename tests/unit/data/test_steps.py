"""The rows of training steps, and the batches that are read for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renate_stages.data import Batched, StoredDataset
from renate_stages.data.loading import step_loader
from renate_stages.data.steps import BalancedRows, Budget, Pass, RandomRows, Steps
from renate_stages.memory import ExampleStore, StoreWriter


@pytest.fixture
def data(tmp_path) -> StoredDataset:
    """Ten examples whose target is their row number."""
    with StoreWriter(tmp_path / "store", update=1) as writer:
        writer.append((np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10)))
    return StoredDataset(ExampleStore.open(tmp_path / "store"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def order(loader) -> list[list[int]]:
    return [batch.new.targets.tolist() for batch in loader]


def loader_of(data, seed: int, **options):
    generator = seeded(seed)
    return step_loader(Steps(data), Pass(len(data), 4, generator), seeded(), **options)


def test_pass_reads_each_example_once_in_an_order_drawn_from_its_generator(data):
    one, other = loader_of(data, 1), loader_of(data, 1)
    first, second = order(one), order(one)
    assert (first, second) == (order(other), order(other))
    assert first != second and first != order(loader_of(data, 2))
    assert sorted(row for batch in first for row in batch) == list(range(10))
    assert [len(batch) for batch in first] == [4, 3, 3] and len(one) == 3


def test_steps_never_draw_from_the_global_generator(data):
    state = torch.get_rng_state()
    order(loader_of(data, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_is_read_in_one_gather(data, monkeypatch):
    calls = []
    gather = ExampleStore.gather
    monkeypatch.setattr(
        ExampleStore, "gather", lambda self, rows: calls.append(len(rows)) or gather(self, rows)
    )
    order(loader_of(data, 0))
    assert calls == [4, 3, 3]


def test_worker_processes_give_the_same_batches(data):
    for batch in loader_of(data, 3, num_workers=1):
        assert batch.new.inputs[:, 0].tolist() == [2 * row for row in batch.new.rows]
    plain, ahead = (order(loader_of(data, 3, num_workers=n)) for n in (0, 1))
    assert plain == ahead


def test_random_transforms_in_workers_continue_after_an_interruption(data):
    """Draws of a step depended on all earlier steps of the worker, so resuming changed the result."""
    data.transform = Batched(lambda inputs: inputs + torch.rand(inputs.shape))
    found, states = [], []
    for workers in (1, 2):
        order, seeds = seeded(3), seeded()
        loader = step_loader(Steps(data), Pass(10, 4, order), seeds, num_workers=workers)
        for generator, state in zip((order, seeds), states, strict=False):
            generator.set_state(state)
        for _ in range(1 if states else 2):
            found.append([batch.new.inputs for batch in loader])
            states = states or [order.get_state(), seeds.get_state()]
    first, second, resumed = (torch.cat(each) for each in found)
    assert torch.equal(second, resumed)
    assert len((torch.cat([first, second]) % 1).unique()) == 40


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_random_rows_cover_every_row_once_per_pass(batch_size):
    rows = RandomRows(10, batch_size, seeded())
    drawn = [row for _ in range(-(-30 // batch_size)) for row in next(rows).tolist()]
    passes = [drawn[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_draw_size_is_limited_to_the_number_of_rows():
    assert sorted(next(RandomRows(10, 64, seeded())).tolist()) == list(range(10))
    with pytest.raises(ValueError, match="from 0 rows"):
        RandomRows(0, 8, seeded())


@pytest.mark.parametrize("kind", ["random", "balanced"])
def test_row_source_continues_from_its_saved_state(kind):
    def make(seed):
        labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
        if kind == "balanced":
            return BalancedRows(labels, 4, seeded(seed))
        return RandomRows(10, 4, seeded(seed))

    source, resumed = make(3), make(4)
    next(source)
    resumed.load_state_dict(source.state_dict())
    for _ in range(6):
        np.testing.assert_array_equal(next(source), next(resumed))


def test_balanced_rows_are_uniform_over_classes_and_within_each_class():
    labels = np.repeat([5, 7], [90, 10])
    np.random.default_rng(0).shuffle(labels)
    source = BalancedRows(labels, 100, seeded())
    drawn = np.concatenate([next(source) for _ in range(200)])
    counts = np.bincount(drawn, minlength=100)
    assert abs(counts[labels == 7].sum() / 20_000 - 0.5) < 0.02
    for label, expected in ((5, 10_000 / 90), (7, 1000)):
        own = counts[labels == label]
        statistic = ((own - expected) ** 2 / expected).sum()
        assert statistic < {5: 137, 7: 28}[label], "chi squared, p = 0.001"


def test_budget_ends_after_its_steps_and_continues_in_the_next_epoch():
    budget = Budget(RandomRows(10, 5, seeded()), steps=3)
    epochs = [[row for step in budget for row in step.new.tolist()] for _ in range(2)]
    assert len(budget) == 3 and [len(epoch) for epoch in epochs] == [15, 15]
    both = epochs[0] + epochs[1]
    assert np.bincount(both).tolist() == [3] * 10
