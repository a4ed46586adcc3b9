"""Memory policies select the rows, with the probabilities, that their papers specify."""

from __future__ import annotations

import json
import sys
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
from renate_stages.memory import (
    POLICIES,
    GreedyClassBalancing,
    Reservoir,
    make_policy,
    rows_of_size,
    size_in_bytes,
)
from renate_stages.memory.herding import herd


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
    """Run Vitter's Algorithm R item by item."""
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
def test_reservoir_selects_every_subset_with_equal_probability(sizes):
    generator = np.random.default_rng(1)
    draws = 4000
    counts = Counter(frozenset(stream(Reservoir(3, generator), sizes)) for _ in range(draws))
    assert set(counts) == set(map(frozenset, combinations(range(6), 3)))
    assert chi_square(counts, 20, draws) < 4
    reference = Counter(frozenset(algorithm_r(3, 6, generator)) for _ in range(draws))
    assert chi_square(reference, 20, draws) < 4


def test_reservoir_of_size_one_keeps_each_of_two_items_half_of_the_time():
    """Renate drew the slot below t instead of up to t, and so always kept the second item."""
    generator = np.random.default_rng(0)
    kept = sum(stream(Reservoir(1, generator), [2])[0] for _ in range(4000))
    assert abs(kept - 2000) < 4 * np.sqrt(1000)


def test_reservoir_inclusion_probability_is_size_over_stream_length():
    generator = np.random.default_rng(2)
    sizes, repeats = [40, 100, 7, 53], 2000
    counts = np.zeros(200)
    for _ in range(repeats):
        counts[stream(Reservoir(50, generator), sizes)] += 1
    deviation = (counts - repeats * 0.25) / np.sqrt(repeats * 0.25 * 0.75)
    assert np.abs(deviation).max() < 4.5
    assert 0.5 < np.mean(deviation**2) < 1.5


@pytest.mark.parametrize(
    "sizes",
    [
        [2000],
        [90, 10, 1400, 500],
        pytest.param([1] * 100 + [1900], marks=pytest.mark.slow),
    ],
)
def test_reservoir_inclusion_is_uniform_when_few_rows_enter(sizes):
    generator = np.random.default_rng(5)
    repeats, size = 1000, 10
    counts = np.zeros(2000)
    for _ in range(repeats):
        kept = stream(Reservoir(size, generator), sizes)
        assert len(kept) == size
        counts[kept] += 1
    groups = counts.reshape(20, 100).sum(axis=1)
    expected = repeats * size / 20
    assert np.abs(groups - expected).max() < 4.5 * np.sqrt(expected)
    drift = (groups - expected) @ np.arange(-9.5, 10)
    assert abs(drift) < 4 * np.sqrt(expected * 665), "665 = sum of the squares of -9.5 … 9.5"


def test_reservoir_selects_pairs_of_a_long_stream_with_equal_probability():
    generator = np.random.default_rng(6)
    counts = Counter(frozenset(stream(Reservoir(2, generator), [20, 20])) for _ in range(8000))
    assert chi_square(counts, 780, 8000) < 4


def test_reservoir_stays_uniform_when_memory_size_is_reduced():
    generator = np.random.default_rng(3)
    draws = 4000
    counts = Counter(
        frozenset(stream(Reservoir(4, generator), [5, 1], resize=[4, 2])) for _ in range(draws)
    )
    assert chi_square(counts, 15, draws) < 4


def test_enlarged_reservoir_is_filled_without_crowding_out_old_rows():
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


def test_reservoir_replaces_forgotten_rows():
    policy = Reservoir(10, np.random.default_rng(0), seen=1000)
    kept, added = policy.select(None, None, 4, 3)
    assert (kept.tolist(), added.tolist()) == ([0, 1, 2, 3], [0, 1, 2])
    kept, added = policy.select(None, None, 7, 500)
    assert len(kept) + len(added) == 10 and policy.seen == 1503


def test_reservoir_below_capacity_keeps_all_rows():
    assert stream(Reservoir(10, np.random.default_rng(0)), [3, 0, 4, 3]) == list(range(10))


@pytest.mark.parametrize("name", POLICIES)
def test_restored_policy_continues_like_an_uninterrupted_policy(name):
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


def test_restored_reservoir_does_not_repeat_its_draws():
    """Renate seeded its generator again at each load."""
    first = Reservoir(50, np.random.default_rng(0), seen=50)
    second = Reservoir(50, np.random.default_rng(0), seen=50)
    one = first.select(None, None, 50, 500)
    second.restore(first.state() | {"seen": 50})
    other = second.select(None, None, 50, 500)
    assert one.added.tolist() != other.added.tolist()


def gdumb(size: int, labels: list[int], generator: np.random.Generator) -> list[int]:
    """Run GDumb's Algorithm 1 item by item; k_c = k / |Y|."""
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
def test_greedy_matches_the_algorithm_of_gdumb(size):
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
    """Renate added every new example, so the last examples replaced the first."""
    policy = GreedyClassBalancing(5, np.random.default_rng(0))
    assert stream(policy, [50], np.zeros(50, int)) == [0, 1, 2, 3, 4]


def test_greedy_evicts_from_the_largest_classes_equally_often():
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


def test_greedy_stays_balanced_when_memory_size_is_reduced():
    labels = np.repeat([0, 1, 2], [2, 20, 20])
    policy = GreedyClassBalancing(42, np.random.default_rng(0))
    items = stream(policy, [42, 0], labels, resize=[42, 10])
    assert sorted(Counter(labels[items].tolist()).values()) == [2, 4, 4]


@pytest.mark.parametrize("labels", [None, np.zeros(3), np.zeros((3, 2), int)])
def test_greedy_without_class_labels_is_refused_with_an_alternative(labels):
    policy = GreedyClassBalancing(5, np.random.default_rng(0))
    with pytest.raises(LabelsNeededError, match="reservoir"):
        policy.select(None, labels, 0, 3)


def test_sliding_window_keeps_the_last_rows_and_infinite_keeps_all_rows():
    generator = np.random.default_rng(0)
    assert stream(make_policy("sliding_window", 4, generator), [3, 3, 2]) == [4, 5, 6, 7]
    assert stream(make_policy("sliding_window", 4, generator), [2, 9]) == [7, 8, 9, 10]
    assert stream(make_policy("infinite", None, generator), [3, 3]) == list(range(6))


def test_unknown_policy_or_invalid_memory_size_is_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(UnknownPolicyError, match="did you mean 'reservoir'"):
        make_policy("resevoir", 10, generator)
    for size in (None, 0, -1):
        with pytest.raises(InvalidMemorySizeError, match="memory_size"):
            make_policy("reservoir", size, generator)
    assert issubclass(InvalidMemorySizeError, RenateStagesError)


def cbrs(size: int, labels: list[int], generator: np.random.Generator) -> list[int]:
    """Run Algorithm 1 of Chrysakis & Moens item by item."""
    memory: list[int] = []
    seen: Counter = Counter()
    full: set[int] = set()
    for item, label in enumerate(labels):
        seen[label] += 1
        if len(memory) < size:
            memory.append(item)
            continue
        stored = Counter(labels[each] for each in memory)
        most = max(stored.values())
        largest = {one for one, count in stored.items() if count == most}
        full |= largest
        if label not in full:
            places = [place for place, each in enumerate(memory) if labels[each] in largest]
        elif generator.random() <= stored[label] / seen[label]:
            places = [place for place, each in enumerate(memory) if labels[each] == label]
        else:
            continue
        memory[places[generator.integers(len(places))]] = item
    return memory


@pytest.mark.parametrize("sizes", [pytest.param([60], marks=pytest.mark.slow), [20, 25, 15]])
def test_class_balanced_reservoir_matches_the_algorithm_of_its_paper(sizes):
    """Over many streams, each item is kept as often as by the item-by-item reference."""
    labels = np.random.default_rng(0).choice(4, 60, p=[0.6, 0.25, 0.1, 0.05])
    draws, generator = 3000, np.random.default_rng(1)
    found, expected = np.zeros(60), np.zeros(60)
    for _ in range(draws):
        found[stream(make_policy("class_balanced", 12, generator), sizes, labels)] += 1
        expected[cbrs(12, labels.tolist(), generator)] += 1
    share = (found + expected) / (2 * draws)
    deviation = (found - expected) / np.sqrt(np.maximum(2 * draws * share * (1 - share), 1e-9))
    assert np.abs(deviation).max() < 4.5 and np.mean(deviation**2) < 1.7


def test_class_balanced_reservoir_keeps_all_of_a_rare_class():
    labels = np.r_[np.zeros(900, int), np.ones(5, int), np.full(95, 2)]
    items = stream(make_policy("class_balanced", 30, np.random.default_rng(0)), [500, 500], labels)
    counts = Counter(labels[items].tolist())
    assert counts[1] == 5 and abs(counts[0] - counts[2]) <= 2 and len(items) == 30


def test_herding_matches_the_greedy_selection_of_its_paper():
    generator = np.random.default_rng(0)
    features = generator.normal([1, 0, 0], size=(40, 3))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    chosen: list[int] = []
    for k in range(1, 11):
        gaps = [
            np.inf
            if row in chosen
            else np.linalg.norm(unit.mean(0) - unit[[*chosen, row]].sum(0) / k)
            for row in range(40)
        ]
        chosen.append(int(np.argmin(gaps)))
    assert herd(features, 10).tolist() == chosen


def test_herding_matches_an_example_computed_by_hand():
    """Unit vectors at 0, 30 and 90 degrees have their mean near 39, so 30 is chosen."""
    angles = np.radians([0, 30, 90])
    assert herd(np.c_[np.cos(angles), np.sin(angles)] * [[1], [5], [2]], 1).tolist() == [1]


def test_herding_drops_its_last_ranked_rows_when_classes_are_added():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(90, 4))
    labels = np.repeat([0, 1, 2], 30)
    policy = make_policy("herding", 12, generator)
    memory = np.empty(0, int)
    orders = {}
    for update in range(3):
        new = np.arange(30 * update, 30 * update + 30)
        orders[update] = new[herd(features[new], 12)]
        again = make_policy("herding", 12, np.random.default_rng(9))
        again.restore(json.loads(json.dumps(policy.state())))
        policy = again
        kept, added = policy.select(labels[memory], labels[new], len(memory), 30, features[new])
        memory = np.concatenate([memory[kept], new[added]])
        places = 12 // (update + 1)
        expected = [row for order in orders.values() for row in sorted(order[:places])]
        assert memory.tolist() == expected


def test_herding_divides_the_places_of_a_class_between_old_and_new_rows():
    generator = np.random.default_rng(0)
    policy = make_policy("herding", 10, generator)
    policy.select(None, np.zeros(30, int), 0, 30, generator.normal(size=(30, 2)))
    new = generator.normal(size=(90, 2))
    kept, added = policy.select(np.zeros(10, int), np.zeros(90, int), 10, 90, new)
    assert (len(kept), len(added)) == (2, 8) and sorted(policy.ranks) == list(range(10))
    policy.forget(np.arange(10) != 3)
    assert len(policy.ranks) == 9


@pytest.mark.parametrize("name", ["greedy", "class_balanced"])
def test_selection_cost_depends_on_entering_rows_not_on_all_rows(name):
    """Select few of a million rows, and count Python calls instead of measuring time."""
    labels = np.random.default_rng(0).integers(0, 10, 1_000_000)
    policy = make_policy(name, 500, np.random.default_rng(0))
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "call"

    sys.setprofile(count)
    try:
        kept, added = policy.select(None, labels, 0, len(labels))
    finally:
        sys.setprofile(None)
    assert len(kept) + len(added) == 500 and lines < 100_000


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("20GB", 20 * 10**9),
        ("20kB", 20_000),
        ("1.5 GiB", 3 * 2**29),
        ("500 MB", 500 * 10**6),
        ("3KiB", 3072),
    ],
)
def test_memory_sizes_in_bytes_are_parsed(size, expected):
    assert size_in_bytes(size) == expected
    assert rows_of_size(size, 1000, 10) == expected // 100
    assert rows_of_size(7, 1000, 10) == 7


@pytest.mark.parametrize("size", ["20", "GB", "-1GB", "20gb", "1e3MB", "0.1B", "20 GBit"])
def test_malformed_memory_size_is_refused(size):
    with pytest.raises(InvalidMemorySizeError, match="500 MB"):
        size_in_bytes(size)
    with pytest.raises(InvalidMemorySizeError, match="less than one example"):
        rows_of_size("3B", 1000, 10)
