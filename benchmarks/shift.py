"""Time of the kernel two-sample test: `make bench NAME=shift`.

MMD of 2,000 + 2,000 rows of 64 features with 1,000 permutations, ours beside a plain loop in the
same process, in turn: the loop makes the kernel matrix once and, for each permutation, takes its
three blocks by index and sums them, as in the literature's pseudo-code (and in Renate). The loop
takes minutes, so with `--quick` a twentieth of its permutations is timed and scaled (the time to make the
kernel matrix is not). Both get the same permutations, and must give the same p-value; the rows have a shift
so small that it is not at the end of the scale.

Then, without a peer: ours on 10,000 + 10,000 rows, with the most memory that it needed.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from statistics import median

import numpy as np
from report import Report
from threadpoolctl import threadpool_limits

from renate_stages.shift import MaximumMeanDiscrepancy
from renate_stages.shift.kernel import median_heuristic, squared_distances
from renate_stages.shift.mmd import draw_splits, permutation_p_value

ROWS, FEATURES, PERMUTATIONS, MANY = 2000, 64, 1000, 10_000
SHIFT = 0.01  # of each feature's mean, in standard deviations


def main() -> None:
    """Time both in turn, compare what they find, and measure memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the loop")
    quick = parser.parse_args().quick
    repeats, timed = (3, PERMUTATIONS // 20) if quick else (3, PERMUTATIONS)
    threadpool_limits(1)  # of matrix products; the loop's sums have one anyhow
    settings = {"permutations": PERMUTATIONS, "repeats": repeats, "threads": 1, "seed": 0}
    report = Report("shift", {**settings, "timed permutations of the loop": timed})
    reference, new = samples(ROWS)
    times: dict[str, list[float]] = {"ours": [], "plain loop": []}
    ours(reference[:200], new[:200])  # a warm-up
    different = 0
    for _ in range(repeats):
        started = time.perf_counter()
        found = ours(reference, new)
        times["ours"].append(time.perf_counter() - started)
        seconds, statistics = plain_loop(reference, new, timed)
        times["plain loop"].append(seconds)
        if timed == PERMUTATIONS:
            different += int(permutation_p_value(statistics) != found.p_value)
        different += int(abs(statistics[0] - found.statistic) > 1e-8)
    print(f"{'seconds, ' + str(PERMUTATIONS) + ' permutations':<44}   median       min       max")
    for name, values in times.items():
        report.add(name, values)
    print(f"p {found.p_value:.3f}, MMD² {found.statistic:.3e}; of the loop {timed} were timed")
    ratios = [a / b for a, b in zip(times["plain loop"], times["ours"], strict=True)]
    report.at_least("plain loop over ours", median(ratios), 50)
    report.at_most("runs whose p-value or statistic differs", different, 0)
    if quick:
        report.at_most("differing p-values, 200 + 200 rows", differing_small(), 0)
    measure_memory(report)
    report.finish()


def samples(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return reference and new rows, float64 `(rows, FEATURES)`."""
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(rows, FEATURES))
    return reference, generator.normal(SHIFT, 1, size=(rows, FEATURES))


def ours(reference: np.ndarray, new: np.ndarray):
    """Return what our detector finds."""
    detector = MaximumMeanDiscrepancy(permutations=PERMUTATIONS)
    return detector.fit(reference).test(new, np.random.default_rng(1))


def plain_loop(
    reference: np.ndarray, new: np.ndarray, permutations: int
) -> tuple[float, np.ndarray]:
    """Return the seconds of all permutations, scaled from those timed, and the statistics of these."""
    started = time.perf_counter()
    generator = np.random.default_rng(1)
    rows = np.concatenate([reference, new])
    bandwidth = median_heuristic(rows - rows.mean(axis=0), generator)
    kernel = np.exp(-squared_distances(rows, rows) / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0)
    splits = draw_splits(generator, len(reference), len(rows), PERMUTATIONS)
    before = time.perf_counter() - started
    found, n, m = [], len(reference), len(new)
    started = time.perf_counter()
    for split in splits[: permutations + 1]:
        first, second = np.flatnonzero(split), np.flatnonzero(~split)
        within = kernel[np.ix_(first, first)].sum() / (n * (n - 1))
        other = kernel[np.ix_(second, second)].sum() / (m * (m - 1))
        found.append(within + other - 2 * kernel[np.ix_(first, second)].mean())
    looped = time.perf_counter() - started
    return before + looped * PERMUTATIONS / permutations, np.array(found)


def differing_small() -> int:
    """Return how many of 10 p-values differ between both, all permutations, on few rows."""
    different = 0
    for part in range(10):
        reference, new = (each[part * 200 : (part + 1) * 200] for each in samples(ROWS))
        _, statistics = plain_loop(reference, new, PERMUTATIONS)
        different += int(permutation_p_value(statistics) != ours(reference, new).p_value)
    return different


def measure_memory(report: Report) -> None:
    """Take the time of many rows, and the most memory that was allocated beside them, in MB."""
    reference, new = samples(MANY)
    tracemalloc.start()
    started = time.perf_counter()
    ours(reference, new)
    seconds = time.perf_counter() - started
    most = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    report.add(f"ours, {MANY} + {MANY} rows: seconds", [seconds])
    report.add(f"ours, {MANY} + {MANY} rows: MB", [most])
    whole = 8 * (2 * MANY) ** 2 / 1e6
    report.at_most(f"memory over that of its kernel matrix ({whole:.0f} MB)", most / whole, 0.1)


if __name__ == "__main__":
    main()
