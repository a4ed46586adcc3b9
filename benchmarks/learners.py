"""Accuracy of learners beside plain PyTorch loops: `make bench NAME=learners DATA=<folder>`.

DATA holds `mnist-train.parquet` and `mnist-test.parquet`. Seven protocols:

    split     Split-MNIST: the classes come in five updates of two (class-incremental); MLP
              784-100-100-10, one epoch; accuracy over all ten classes at the end
    uneven    the same with 2,000 training digits in one update, another one with each seed, and 200
              in each of the others
    ridge     the stream of `split` in closed form, without stored data
    permuted  Permuted-MNIST: twenty updates of all digits, the pixels of each in an order of its own
              (domain-incremental); the same MLP, one epoch; mean accuracy over the twenty orders
    rotated   one update of production: a small CNN that knows 20,000 digits meets 2,000 turned by 45
              degrees, five epochs; accuracy on the upright and on the turned test set
    small     Split-MNIST with 10,000 of the 60,000 digits, for learners that no paper measures on it
    shifted   Rotated-MNIST: five updates of 2,000 digits, turned by 0 to 80 degrees, one epoch; mean
              accuracy over the five angles

Split and permuted are those of Buzzega et al., "Dark Experience for General Continual Learning",
NeurIPS 2020, with the settings of its authors' code; the column `paper` is its appendix. Ours goes
the way of production: each update is an `Updater` on stores of examples, its state is written to
disk and read by the next. Beside it, in the same process, runs a plain loop of the same method
(`plain_loops.py`, `plain_methods.py`) from the same initial weights; the order of examples and the draws
from the memory differ.

An aim is met where the 95 % interval (t distribution) of the difference, paired by seed, includes 0
or lies within 1.5 points. With two or three seeds it is wide, and says little.

In the rotated update nothing is chosen on test data: WiSE-FT's coefficient is chosen on validation
digits, 500 of either domain, which come beside the 2,000.

The full form takes hours. Each run is noted in `results/learners-runs.jsonl` as it ends; with
`--resume` those noted there are not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

import protocols
import runs
from method_rows import METHOD_ROWS
from protocols import (
    QUICK_ROTATED,
    QUICK_ROWS,
    QUICK_UPDATES,
    ROTATED,
    UPDATES,
    Row,
    known,
    run_rotated,
    run_row,
)
from report import RESULTS, Report
from runs import Digits, Interval, Record, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = [*protocols.ROWS, *METHOD_ROWS]
SEEDS = 10
QUICK_SEEDS = {"split": 2, "uneven": 5, "permuted": 2, "ridge": 1, "rotated": 1}
QUICK_SEEDS |= {"small": 2, "shifted": 2}
MARGIN = 1.5  # points
RIDGE_AIM, EMA_AIM, WISE_AIM = 96.5, 94, 91


class Job(NamedTuple):
    """What a process runs at once: a row with one seed, or the whole rotated update with one."""

    protocol: str
    names: tuple[str, ...]  # of rows; all that are wanted, where the update is the rotated one
    seed: int
    quick: bool

    def labels(self) -> list[str]:
        """Return what its records are called."""
        length = f"-{QUICK_UPDATES}" if self.quick and self.protocol == "permuted" else ""
        return [f"{self.protocol}{length} {name}" for name in self.names]


def main() -> None:
    """Run what is asked for in two processes; print rows as they come, then aims and files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the Parquet files")
    parser.add_argument(
        "--quick", action="store_true", help="few rows and seeds, 3 permuted updates"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PATTERN", help="such as 'split ER*' 'rotated *'"
    )
    parser.add_argument("--seeds", type=int, help=f"how many, from 0 on ({SEEDS})")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each (2)")
    parser.add_argument("--resume", action="store_true", help="do not repeat what is noted")
    arguments = parser.parse_args()
    form = "-part" if arguments.only or arguments.seeds else "-quick" if arguments.quick else ""
    jobs = wanted(arguments.only or ["*"], arguments.seeds, arguments.quick)
    if not jobs:
        parser.error(f"no row is like {' or '.join(arguments.only)}")
    settings = {
        "processes": arguments.processes,
        "quick": arguments.quick,
        "seeds": sorted({job.seed for job in jobs}),
        "threads": 1,
        "updates": {**UPDATES, **({"permuted": QUICK_UPDATES} if arguments.quick else {})},
    }
    report = Report(f"learners{form}", settings)
    if arguments.quick:
        print(f"the quick form: few rows and seeds, {QUICK_UPDATES} of 20 permuted updates\n")
    print(f"{'':<36}{'ours':>15}{'plain':>15}{'difference':>12}{'95 % interval':>18}{'paper':>8}")
    table = Table(jobs)
    noted = RESULTS / "learners-runs.jsonl"
    for record in runs.read(noted) if arguments.resume else []:
        table.add(record)
    todo = [job for job in jobs if not table.has(job)]
    given = arguments.data, arguments.processes, noted, arguments.resume
    for record in runs.run(todo, run_job, *given):
        table.add(record)
    table.finish(report)
    table.write_csv(RESULTS / f"{report.name}.csv")
    table.draw(RESULTS / f"{report.name}.png")
    report.finish()


def wanted(patterns: Sequence[str], seeds: int | None, quick: bool) -> list[Job]:
    """Return the jobs of the rows that a pattern fits, a row's seeds after each other."""
    missing = sorted({row.learner for row in (*ROWS, *ROTATED) if row.learner and not known(row)})
    if missing:
        print(f"no such learners yet, so without their rows: {', '.join(missing)}")

    def fits(protocol: str, name: str) -> bool:
        return any(fnmatch(f"{protocol} {name}", pattern) for pattern in patterns)

    def numbers(protocol: str) -> range:
        return range(seeds or (QUICK_SEEDS[protocol] if quick else SEEDS))

    jobs = []
    for row in ROWS:
        chosen = not quick or row.name in QUICK_ROWS[row.protocol]
        if chosen and known(row) and fits(row.protocol, row.name):
            jobs += [Job(row.protocol, (row.name,), n, quick) for n in numbers(row.protocol)]
    names = tuple(
        row.name
        for row in ROTATED
        if known(row) and (not quick or row.name in QUICK_ROTATED) and fits("rotated", row.name)
    )
    if names:
        jobs += [Job("rotated", names, seed, quick) for seed in numbers("rotated")]
    return jobs


# -- running --------------------------------------------------------------------------------------


def run_job(job: Job, digits: Digits) -> list[Record]:
    """Run a job in this process."""
    if job.protocol == "rotated":
        found = run_rotated([row for row in ROTATED if row.name in job.names], job.seed, digits)
        by_name = [found[name] for name in job.names]
    else:
        by_name = [run_row(row_of(job), job.seed, digits, job.quick)]
    return [
        {"row": label, "seed": job.seed, **record}
        for label, record in zip(job.labels(), by_name, strict=True)
    ]


def row_of(job: Job) -> Row:
    """Return a job's row."""
    (name,) = job.names
    return next(row for row in ROWS if (row.protocol, row.name) == (job.protocol, name))


# -- the table ------------------------------------------------------------------------------------


class Table:
    """The records of all rows; a row is printed once its last seed is there.

    Args:
        jobs: That are wanted: their records count, others do not.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.papers: dict[str, float | None] = {}
        self.records: dict[str, dict[int, Record]] = {}
        self._seeds: dict[str, set[int]] = {}
        for job in jobs:
            for label in job.labels():
                self.records.setdefault(label, {})
                self._seeds.setdefault(label, set()).add(job.seed)
                rotated = job.protocol == "rotated"
                self.papers[label] = None if rotated or job.quick else row_of(job).paper

    def has(self, job: Job) -> bool:
        """Whether all records of a job are there."""
        return all(job.seed in self.records[label] for label in job.labels())

    def add(self, record: Record) -> None:
        """Take a record in, if it is wanted; print its row if it is the last."""
        label, seed = record["row"], record["seed"]
        if seed in self._seeds.get(label, ()) and seed not in self.records[label]:
            self.records[label][seed] = record
            if len(self.records[label]) == len(self._seeds[label]):
                print(self.line(label), flush=True)

    def values(self, label: str, what: str) -> list[float]:
        """Return a row's figures by seed."""
        return [record[what] for _, record in sorted(self.records[label].items())]

    def difference(self, label: str) -> Interval:
        """Return ours less plain, paired by seed."""
        ours, plain = self.values(label, "ours"), self.values(label, "plain")
        return Interval.of([a - b for a, b in zip(ours, plain, strict=True)])

    def line(self, label: str) -> str:
        """Return a row as it is printed: means and standard deviations over the seeds."""
        if label.startswith("rotated"):
            parts = (
                f"{what} {spread(self.values(label, what))}" for what in ("old", "new", "mean")
            )
            return f"{label:<36}  {'    '.join(parts)}"
        found, paper = self.difference(label), self.papers[label]
        return (
            f"{label:<36}{spread(self.values(label, 'ours')):>15}"
            f"{spread(self.values(label, 'plain')):>15}{found.mean:>+12.2f}{found.ends:>18}"
            f"{paper if paper is not None else '':>8}"
        )

    def finish(self, report: Report) -> None:
        """Give all values and aims to the report, and print how long the runs took."""
        for label, records in self.records.items():
            whats = ("old", "new", "mean") if label.startswith("rotated") else ("ours", "plain")
            for what in whats:
                report.values[f"{label}, {what}"] = self.values(label, what)
            if "ours" in whats:
                found = self.difference(label)
                if len(records) > 1:
                    what = f"{label}: reach of an interval that leaves 0 out, points"
                    report.at_most(what, found.beyond, MARGIN)
            if label == "ridge RanPAC 4000":
                report.at_least(f"{label}, accuracy", mean(self.values(label, "ours")), RIDGE_AIM)
                kept = max(self.values(label, "rows kept"))
                report.at_most(f"{label}, examples kept", kept, 0)
            aim = {"rotated ER 500, EMA 0.99": EMA_AIM, "rotated WiSE-FT": WISE_AIM}.get(label)
            if aim is not None:
                report.at_least(f"{label}, mean of both", mean(self.values(label, "mean")), aim)
        ours, plain = (
            sum(
                record.get(f"seconds of {side}", 0)
                for each in self.records.values()
                for record in each.values()
            )
            for side in ("ours", "plain")
        )
        print(f"\nseconds of all runs: ours {ours:.0f}, plain {plain:.0f}")

    def write_csv(self, path: Path) -> None:
        """Write every record, a line each."""
        lines = [
            self.records[label][seed] for label in self.records for seed in self.records[label]
        ]
        runs.write_csv(path, lines, ("row", "seed"))

    def draw(self, path: Path) -> None:
        """Draw a panel for each protocol: means, standard deviations as bars, the paper's value."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        panels: dict[str, list[str]] = {}
        for label in self.records:
            panels.setdefault(label.split()[0], []).append(label)
        heights = [len(labels) + 1.5 for labels in panels.values()]
        figure = Figure(figsize=(8, 0.8 + 0.36 * sum(heights)), dpi=144, layout="constrained")
        axes = figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
        for panel, (protocol, labels) in zip(axes, panels.items(), strict=True):
            self._draw_panel(panel, protocol, labels)
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
        print(path)

    def _draw_panel(self, axes: Axes, protocol: str, labels: Sequence[str]) -> None:
        rotated = protocol == "rotated"
        for whats in (("old", "new", "mean") if rotated else ("ours", "plain", "paper"),):
            for number, what in enumerate(whats):
                marks = self._marks(what, labels)
                if marks:
                    places, means, bars = zip(*marks, strict=True)
                    axes.errorbar(
                        means,
                        [place + 0.22 * (number - 1) for place in places],
                        xerr=bars,
                        fmt="osD"[number],
                        color=("#0072B2", "#E69F00", "#000000")[number],  # Okabe & Ito
                        markerfacecolor="white" if number == 2 else None,
                        markersize=5,
                        linewidth=1.3,
                        capsize=2.5,
                        label=WORDS[what],
                    )
        axes.set_yticks(range(len(labels)), [label.split(" ", 1)[1] for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel("accuracy, %")
        axes.set_title(TITLES[protocol.split("-")[0]], loc="left", fontsize="medium")
        axes.grid(axis="x", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")

    def _marks(self, what: str, labels: Sequence[str]) -> list[tuple[int, float, float]]:
        """Return place, mean and standard deviation of each row that has such a figure."""
        marks = []
        for place, label in enumerate(labels):
            paper = self.papers[label]
            if what == "paper":
                marks += [(place, paper, 0.0)] if paper is not None else []
            else:
                values = self.values(label, what)
                marks.append((place, mean(values), stdev(values) if len(values) > 1 else 0.0))
        return marks


WORDS = {
    "ours": "Renate Stages",
    "plain": "plain PyTorch",
    "paper": "DER paper",
    "old": "upright",
    "new": "turned",
    "mean": "mean of both",
}
TITLES = {
    "split": "Split-MNIST, class-incremental, five updates",
    "uneven": "Split-MNIST with one large update and four small ones",
    "ridge": "Split-MNIST in closed form, no stored data",
    "permuted": "Permuted-MNIST, domain-incremental",
    "rotated": "One update of digits turned by 45°",
    "small": "Split-MNIST with 10,000 digits",
    "shifted": "Rotated-MNIST, five updates of 2,000 digits",
}


if __name__ == "__main__":
    main()
