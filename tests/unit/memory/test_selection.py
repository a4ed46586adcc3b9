"""Policies keep the rows their papers say, with the probabilities their papers say."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from renate_stages.errors import (
    InvalidMemorySizeError,
    LabelsNeededError,
    RenateStagesError,
    UnknownPolicyError,
)
from renate_stages.memory import POLICIES, GreedyClassBalancing, Reservoir, make_policy


def stream(policy, sizes, labels=None, resize=()) -> list[int]:
    """Offer items 0, 1, 2 … in updates of the given sizes; return the items in memory."""
    memory = np.array([], dtype=np.int64)
    start = 0
    labels = None if labels is None else np.asarray(labels)
    for update, count in enumerate(sizes):
        if update < len(resize):
            policy.size = resize[update]
        new = np.arange(start, start + count)
        given = (None, None) if labels is None else (labels[memory], labels[new])
        kept, added = policy.select(*given, len(memory), count)
        for rows, bound in ((kept, len(memory)), (added, count)):
            assert rows.dtype == np.int64 and np.all(np.diff(rows) > 0)
            assert not len(rows) or 0 <= rows[0] <= rows[-1] < bound
        memory = np.concatenate([memory[kept], new[added]])
        start += count
    return memory.tolist()


def algorithm_r(size: int, count: int, generator: np.random.Generator) -> list[int]:
    """Vitter's Algorithm R, item after item."""
    memory: list[int] = []
    for item in range(count):
        if len(memory) < size:
            memory.append(item)
        elif (slot := generator.integers(1, item + 2)) <= size:  # 1 … t, t = item + 1
            memory[slot - 1] = item
    return memory


def chi_square(counts: Counter, outcomes: int, draws: int) -> float:
    """Return Pearson's statistic against equal probabilities, standardised to about N(0, 1)."""
    expected = draws / outcomes
    missing = (outcomes - len(counts)) * expected
    statistic = missing + sum((n - expected) ** 2 / expected for n in counts.values())
    return (statistic - (outcomes - 1)) / np.sqrt(2 * (outcomes - 1))


@pytest.mark.parametrize("sizes", [[6], [3, 3], [1, 2, 0, 3], [1] * 6])
def test_every_subset_of_the_stream_is_equally_likely(sizes):
    generator = np.random.default_rng(1)
    draws = 4000
    counts = Counter(frozenset(stream(Reservoir(3, generator), sizes)) for _ in range(draws))
    assert set(counts) == set(map(frozenset, combinations(range(6), 3)))
    assert chi_square(counts, 20, draws) < 4
    reference = Counter(frozenset(algorithm_r(3, 6, generator)) for _ in range(draws))
    assert chi_square(reference, 20, draws) < 4


def test_a_memory_of_one_keeps_each_of_two_items_half_of_the_time():
    """The predecessor drew its slot below t, not up to t, and always kept the second."""
    generator = np.random.default_rng(0)
    kept = sum(stream(Reservoir(1, generator), [2])[0] for _ in range(4000))
    assert abs(kept - 2000) < 4 * np.sqrt(1000)


def test_inclusion_is_size_over_stream_across_long_updates():
    generator = np.random.default_rng(2)
    sizes, repeats = [40, 100, 7, 53], 2000
    counts = np.zeros(200)
    for _ in range(repeats):
        counts[stream(Reservoir(50, generator), sizes)] += 1
    deviation = (counts - repeats * 0.25) / np.sqrt(repeats * 0.25 * 0.75)
    assert np.abs(deviation).max() < 4.5
    assert 0.5 < np.mean(deviation**2) < 1.5


def test_a_smaller_memory_is_uniform_too():
    generator = np.random.default_rng(3)
    draws = 4000
    counts = Counter(
        frozenset(stream(Reservoir(4, generator), [5, 1], resize=[4, 2])) for _ in range(draws)
    )
    assert chi_square(counts, 15, draws) < 4


def test_a_larger_memory_is_filled_and_old_rows_are_not_crowded_out():
    generator = np.random.default_rng(4)
    repeats = 500
    counts = np.zeros(1000)
    for _ in range(repeats):
        items = stream(Reservoir(50, generator), [500, 500], resize=[50, 100])
        assert len(items) == 100
        counts[items] += 1
    old, new = counts[:500].sum() / repeats, counts[500:].sum() / repeats
    # a uniform sample of 100 has 50 ± 4.7 of each; there are 50 old ones at most
    assert 46 < old < 50 and 50 < new < 54


def test_forgotten_rows_are_replaced():
    policy = Reservoir(10, np.random.default_rng(0), seen=1000)
    kept, added = policy.select(None, None, 4, 3)
    assert (kept.tolist(), added.tolist()) == ([0, 1, 2, 3], [0, 1, 2])
    kept, added = policy.select(None, None, 7, 500)
    assert len(kept) + len(added) == 10 and policy.seen == 1503


def test_an_unfilled_memory_keeps_all():
    assert stream(Reservoir(10, np.random.default_rng(0)), [3, 0, 4, 3]) == list(range(10))


@pytest.mark.parametrize("name", POLICIES)
def test_a_saved_policy_continues_as_if_it_had_not_stopped(name):
    labels = np.random.default_rng(9).integers(0, 5, 300)
    stopped, straight = (make_policy(name, 20, np.random.default_rng(5)) for _ in range(2))
    resumed = make_policy(name, 20, np.random.default_rng(77))
    selection, _ = (policy.select(None, labels[:150], 0, 150) for policy in (stopped, straight))
    resumed.restore(json.loads(json.dumps(stopped.state())))
    old = labels[selection.added]
    one, other = (policy.select(old, labels[150:], len(old), 150) for policy in (resumed, straight))
    np.testing.assert_array_equal(one.kept, other.kept)
    np.testing.assert_array_equal(one.added, other.added)
    assert resumed.state() == straight.state()


def test_two_updates_do_not_repeat_the_same_draws():
    """The predecessor seeded its generator again at each load."""
    first = Reservoir(50, np.random.default_rng(0), seen=50)
    second = Reservoir(50, np.random.default_rng(0), seen=50)
    one = first.select(None, None, 50, 500)
    second.restore(first.state() | {"seen": 50})
    other = second.select(None, None, 50, 500)
    assert one.added.tolist() != other.added.tolist()


def gdumb(size: int, labels: list[int], generator: np.random.Generator) -> list[int]:
    """GDumb's Algorithm 1, item after item; k_c = k / |Y|."""
    memory: dict[int, list[int]] = {}
    for item, label in enumerate(labels):
        memory.setdefault(label, [])
        if len(memory[label]) < size / len(memory):
            if sum(map(len, memory.values())) >= size:
                most = max(map(len, memory.values()))
                largest = [rows for rows in memory.values() if len(rows) == most]
                rows = largest[generator.integers(len(largest))]
                rows.pop(generator.integers(len(rows)))
            memory[label].append(item)
    return [item for rows in memory.values() for item in rows]


@pytest.mark.parametrize("size", [1, 3, 10, 32])
def test_greedy_is_gdumb_item_after_item(size):
    for seed in range(20):
        labels = np.random.default_rng(seed).choice(7, 150, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
        policy = GreedyClassBalancing(size, np.random.default_rng(seed))
        found = stream(policy, [150], labels)
        assert sorted(found) == sorted(gdumb(size, labels.tolist(), np.random.default_rng(seed)))


def test_greedy_balances_classes_over_updates():
    labels = np.repeat(np.arange(6), 50)
    policy = GreedyClassBalancing(30, np.random.default_rng(0))
    items = stream(policy, [100, 100, 100], labels)
    assert Counter(labels[items].tolist()) == dict.fromkeys(range(6), 5)


def test_greedy_with_one_class_keeps_the_first_examples():
    """The predecessor let each new example in, so the last ones crowded out the first."""
    policy = GreedyClassBalancing(5, np.random.default_rng(0))
    assert stream(policy, [50], np.zeros(50, int)) == [0, 1, 2, 3, 4]


def test_greedy_takes_each_of_the_largest_classes_equally_often():
    generator = np.random.default_rng(0)
    lost = Counter()
    for _ in range(600):
        items = stream(GreedyClassBalancing(6, generator), [7], [0, 0, 1, 1, 2, 2, 3])
        assert 6 in items
        lost.update({0, 1, 2, 3, 4, 5} - set(items))
    assert set(lost) == set(range(6)) and max(lost.values()) < 150


def test_greedy_remembers_classes_that_lost_all_their_rows():
    policy = GreedyClassBalancing(2, np.random.default_rng(0))
    stream(policy, [2, 4], [0, 1, 2, 3, 4, 5])
    assert policy.state()["classes"] == [0, 1, 2, 3, 4, 5]


def test_a_smaller_greedy_memory_stays_balanced():
    labels = np.repeat([0, 1, 2], [2, 20, 20])
    policy = GreedyClassBalancing(42, np.random.default_rng(0))
    items = stream(policy, [42, 0], labels, resize=[42, 10])
    assert sorted(Counter(labels[items].tolist()).values()) == [2, 4, 4]


@pytest.mark.parametrize("labels", [None, np.zeros(3), np.zeros((3, 2), int)])
def test_greedy_without_labels_says_what_to_do(labels):
    policy = GreedyClassBalancing(5, np.random.default_rng(0))
    with pytest.raises(LabelsNeededError, match="reservoir"):
        policy.select(None, labels, 0, 3)


def test_a_window_keeps_the_last_and_infinite_keeps_all():
    generator = np.random.default_rng(0)
    assert stream(make_policy("sliding_window", 4, generator), [3, 3, 2]) == [4, 5, 6, 7]
    assert stream(make_policy("sliding_window", 4, generator), [2, 9]) == [7, 8, 9, 10]
    assert stream(make_policy("infinite", None, generator), [3, 3]) == list(range(6))


def test_a_wrong_name_or_size_is_a_users_error():
    generator = np.random.default_rng(0)
    with pytest.raises(UnknownPolicyError, match="did you mean 'reservoir'"):
        make_policy("resevoir", 10, generator)
    for size in (None, 0, -1):
        with pytest.raises(InvalidMemorySizeError, match="memory_size"):
            make_policy("reservoir", size, generator)
    assert issubclass(InvalidMemorySizeError, RenateStagesError)
