"""False alarms, detections and time of shift tests: `make bench NAME=shift`.

MMD of 2,000 + 2,000 rows of 64 features with 1,000 permutations, ours beside a plain loop in the
same process, in turn: the loop makes the kernel matrix once and, for each permutation, takes its
three blocks by index and sums them, as in the literature's pseudo-code (and in Renate). The loop
takes minutes, so with `--quick` a twentieth of its permutations is timed and scaled (the time to make the
kernel matrix is not). Both get the same permutations, and must give the same p-value; the rows have a shift
so small that it is not at the end of the scale.

Then, without a peer: ours on 50,000 + 50,000 rows (10,000 + 10,000 with `--quick`), in a process of
its own, with the most memory that it had. That takes four minutes.

Before both, false alarms and detections of `should-update` (`shift_rates.py`): of 100 splits of each kind,
20 with `--quick`; and its answers on a real stream with dates (`shift_stream.py`). `--rates` measures
nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from statistics import median

import numpy as np
import shift_rates
import shift_stream
from report import Report
from threadpoolctl import threadpool_limits

from renate_stages.shift import MaximumMeanDiscrepancy
from renate_stages.shift.kernel import median_heuristic, squared_distances
from renate_stages.shift.mmd import draw_splits, permutation_p_value

ROWS, FEATURES, PERMUTATIONS = 2000, 64, 1000
MANY, MANY_QUICK = 50_000, 10_000
SPLITS, SPLITS_QUICK = 100, 20
SHIFT = 0.01  # of each feature's mean, in standard deviations


def main() -> None:
    """Time both in turn, compare what they find, and measure memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the loop")
    parser.add_argument("--rates", action="store_true", help="only false alarms and detections")
    given = parser.parse_args()
    quick = given.quick
    repeats, timed = (3, PERMUTATIONS // 20) if quick else (3, PERMUTATIONS)
    threadpool_limits(1)  # of matrix products; the loop's sums have one anyhow
    settings = {"permutations": PERMUTATIONS, "repeats": repeats, "threads": 1, "seed": 0}
    report = Report("shift", {**settings, "timed permutations of the loop": timed})
    shift_rates.measure(report, SPLITS_QUICK if quick else SPLITS)
    shift_stream.measure(report)
    if given.rates:
        report.finish()
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
    measure_memory(report, MANY_QUICK if quick else MANY)
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


def measure_memory(report: Report, rows: int) -> None:
    """Take the time of many rows, and the most memory that a process has with them and without."""
    context = multiprocessing.get_context("spawn")  # a fork would begin with our own memory
    with context.Pool(1, maxtasksperchild=1) as pool:
        seconds, before, most = pool.apply(many_rows, (rows,))
    report.add(f"ours, {rows} + {rows} rows: seconds", [seconds])
    report.add(f"ours, {rows} + {rows} rows: peak MB of the process", [most])
    report.add("the same process with the rows alone: MB", [before])
    whole = 8 * (2 * rows) ** 2 / 1e6
    print(f"its kernel matrix would have {whole:.0f} MB")
    report.at_most("MB that the test adds to the rows", most - before, 250)


def many_rows(rows: int) -> tuple[float, float, float]:
    """Return seconds, and the most MB of this process before the test and after it."""
    threadpool_limits(1)
    reference, new = samples(rows)
    ours(reference[:200], new[:200])
    before = peak()
    started = time.perf_counter()
    ours(reference, new)
    return time.perf_counter() - started, before, peak()


def peak() -> float:
    """Return the most memory that this process has had resident, in MB, as Linux tells it.

    Not `getrusage`: there a process begins with the peak of the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
