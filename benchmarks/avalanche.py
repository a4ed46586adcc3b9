"""Avalanche inside our updates and alone: `make bench NAME=avalanche DATA=<folder>`.

Figure 3 of the Renate paper (Wistuba et al., "Renate: A Library for Real-World Continual Learning",
2023). DATA contains `mnist-train.parquet`, `mnist-test.parquet` and the same of `cifar10`. Streams:

    split     Split-MNIST: the classes come in five updates of two (class-incremental); ER and iCaRL
              with 500 examples; accuracy on the test digits of all classes met so far
    cifar     the same with CIFAR-10
    rotated   Rotated-MNIST: ten updates, the digits turned by 0, 10, ... 90 degrees (domain-
              incremental); EWC, LwF, and Naive, which does nothing against forgetting; mean accuracy
              over the angles met so far, on 2,000 test digits

An MLP 784-100-100-10, of CIFAR-10 a CNN with two convolutions, SGD, batches of 32 new and, of ER, 32
remembered examples, one epoch; 20,000 training images in the five updates of split and of cifar,
50,000 in the ten of rotated, in an order drawn by the seed. Three sides, in the same process, in turn:

    alone     Avalanche's strategy with its own loop and datasets, all in one process
    inside    `learner: Avalanche-NAME`: each update an `Updater` on stores of examples, from one
              state on disk to the next
    native    our own learner of the method, the same way; of iCaRL there is none

The first two start from the same weights and draw the same: are their bits equal? If not, the 95 %
interval (t distribution) of the difference of their last accuracies, paired by seed, is to include
0 or lie within 1.5 points. Seconds are those of an update on the processor (one thread), so that
what else the machine does counts little: alone, of making the dataset and training; on the other
sides also of writing the stores, of measuring the model before and after and of reading and writing
the state. No import is in them.

Each run is noted in `results/avalanche-runs.jsonl` as it ends; with `--resume` those noted there
are not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import runs
from avalanche_methods import BATCH, METHODS, QUICK_TRAIN, TEST, TRAIN, Method
from avalanche_sides import run_method
from report import RESULTS, Report, is_installed
from runs import Digits, Interval, Record, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS, QUICK_SEEDS = 10, 2
MARGIN = 1.5  # points


class Job(NamedTuple):
    """What a process runs at once: a method on all sides with one seed."""

    label: str
    seed: int
    quick: bool

    @property
    def form(self) -> str:
        """What its record is called: the quick form's are others."""
        return f"{self.label}, quick" if self.quick else self.label


def main() -> None:
    """Run what is asked for; print methods as they come, then aims and files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the Parquet files")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_SEEDS} seeds, part of the images"
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="such as 'split ER' '* EWC'")
    parser.add_argument("--seeds", type=int, help=f"how many, from 0 on ({SEEDS})")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each (2)")
    parser.add_argument("--resume", action="store_true", help="do not repeat what is noted")
    arguments = parser.parse_args()
    if not is_installed("avalanche"):
        print(
            "error: this benchmark runs Avalanche, and avalanche-lib is not installed: install the "
            "extra, pip install 'renate-stages[avalanche]'",
            file=sys.stderr,
        )
        sys.exit(2)
    patterns = arguments.only or ["*"]
    methods = [m for m in METHODS if any(fnmatch(m.label, pattern) for pattern in patterns)]
    if not methods:
        parser.error(f"no method is like {' or '.join(arguments.only)}")
    seeds = range(arguments.seeds or (QUICK_SEEDS if arguments.quick else SEEDS))
    form = "-quick" if arguments.quick else "-part" if arguments.only or arguments.seeds else ""
    settings = {
        "batch": BATCH,
        "hyperparameters": {m.label: {**m.common, **m.inside} for m in methods},
        "hyperparameters of native": {m.label: {**m.common, **m.own} for m in methods if m.native},
        "processes": arguments.processes,
        "quick": arguments.quick,
        "seeds": list(seeds),
        "test images": TEST,
        "threads": 1,
        "training images": QUICK_TRAIN if arguments.quick else TRAIN,
    }
    report = Report(f"avalanche{form}", settings)
    # All seeds of one after the other: an interrupted run has the same seeds of every method.
    jobs = [Job(method.label, seed, arguments.quick) for seed in seeds for method in methods]
    table = Table(methods, jobs)
    print(HEADER)
    noted = RESULTS / "avalanche-runs.jsonl"
    for record in runs.read(noted) if arguments.resume else []:
        table.add(record)
    todo = [job for job in jobs if job.seed not in table.records[job.label]]
    given = arguments.data, arguments.processes, noted, arguments.resume
    for record in runs.run(todo, run_job, *given, dataset_of=dataset_of):
        table.add(record)
    table.finish(report)
    runs.write_csv(RESULTS / f"{report.name}.csv", table.lines(), ("method", "seed", "update"))
    table.draw(RESULTS / f"{report.name}.png")
    report.finish()


def dataset_of(job: Job) -> str:
    """Return the name of a job's dataset."""
    return _method_of(job).dataset


def _method_of(job: Job) -> Method:
    return next(method for method in METHODS if method.label == job.label)


def run_job(job: Job, digits: Digits) -> list[Record]:
    """Run a job in this process."""
    record = run_method(_method_of(job), job.seed, digits, job.quick)
    return [{"row": job.form, "seed": job.seed, **record}]


class Table:
    """The records of all methods; one is printed once its last seed is there.

    Args:
        methods: In the order of the table.
        jobs: That are wanted: their records count, others do not.
    """

    def __init__(self, methods: Sequence[Method], jobs: Sequence[Job]) -> None:
        self.methods = {method.label: method for method in methods}
        self.records: dict[str, dict[int, Record]] = {label: {} for label in self.methods}
        self._wanted = {(job.form, job.seed): job.label for job in jobs}
        self._seeds = len({job.seed for job in jobs})

    def add(self, record: Record) -> None:
        """Take a record in, if it is wanted; print its method if it is the last."""
        label = self._wanted.get((record["row"], record["seed"]))
        if label is not None and record["seed"] not in self.records[label]:
            self.records[label][record["seed"]] = record
            if len(self.records[label]) == self._seeds:
                print(self.line(label), flush=True)

    def values(self, label: str, what: str) -> list[Any]:
        """Return a method's figures by seed, each a list over updates."""
        return [record[what] for _, record in sorted(self.records[label].items())]

    def last(self, label: str, side: str) -> list[float]:
        """Return the accuracy after the last update, by seed."""
        return [each[-1] for each in self.values(label, f"accuracy {side}")]

    def seconds(self, label: str, side: str) -> list[float]:
        """Return the mean seconds of an update, by seed."""
        return [mean(each) for each in self.values(label, f"seconds {side}")]

    def ratio(self, label: str, side: str) -> list[float]:
        """Return the seconds of a side as a multiple of those of Avalanche alone, by seed."""
        pairs = zip(self.seconds(label, side), self.seconds(label, "alone"), strict=True)
        return [ours / alone for ours, alone in pairs]

    def waiting(self) -> float:
        """Return seconds of the clock to one of the processor, over all updates."""
        clock, processor = (
            sum(
                sum(seconds)
                for label, method in self.methods.items()
                for side in method.sides
                for seconds in self.values(label, f"{what} {side}")
            )
            for what in ("seconds on the clock", "seconds")
        )
        return clock / processor

    def equal(self, label: str) -> int:
        """Return with how many seeds the bits of all weights are equal after every update."""
        return sum(all(each) for each in self.values(label, "equal bits"))

    def difference(self, label: str) -> Interval:
        """Return the last accuracy inside less that alone, paired by seed."""
        pairs = zip(self.last(label, "inside"), self.last(label, "alone"), strict=True)
        return Interval.of([inside - alone for inside, alone in pairs])

    def line(self, label: str) -> str:
        """Return a method as it is printed."""
        method = self.methods[label]
        accuracies = [spread(self.last(label, side)) for side in method.sides]
        seconds = [f"{median(self.seconds(label, side)):.2f}" for side in method.sides]
        ratios = [f"{median(self.ratio(label, side)):.2f}x" for side in method.sides[1:]]
        equal, count = self.equal(label), len(self.records[label])
        bits = f"{equal} of {count}"
        if equal < count:
            bits += f" ({self.difference(label).ends})"
        return (
            f"{label:<15}{''.join(f'{each:>14}' for each in _three(accuracies))}{bits:>12}   "
            f"{''.join(f'{each:>8}' for each in _three(seconds))}"
            f"{''.join(f'{each:>8}' for each in (*ratios, '-')[:2])}"
        )

    def finish(self, report: Report) -> None:
        """Give all values and aims to the report, and print what the table does not say."""
        imports = max(max(self.values(label, "seconds of imports")) for label in self.records)
        print(f"\nseconds to import Avalanche beside PyTorch and Lightning: {imports:.1f}")
        print(f"seconds of the clock to one of the processor: {self.waiting():.1f}")
        report.values["seconds of imports"] = [imports]
        for label, records in self.records.items():
            for side in self.methods[label].sides:
                report.values[f"{label}, accuracy {side}"] = self.last(label, side)
                report.values[f"{label}, seconds an update {side}"] = self.seconds(label, side)
            others = self.values(label, "other answers")
            if any(map(any, others)):
                most = [max(each) for each in zip(*others, strict=True)]
                print(f"{label}: most answers that differ, by update: {most}")
            equal = self.equal(label)
            if equal == len(records):
                report.at_least(f"{label}: seeds with equal bits", equal, len(records))
            elif len(records) > 1:
                what = f"{label}: reach of an interval that leaves 0 out, points"
                report.at_most(what, self.difference(label).beyond, MARGIN)
            final = max(each[-1] for each in others)
            if equal == len(records):
                ties = self.methods[label].ties
                report.at_most(f"{label}: answers that differ at the end", final, ties)

    def lines(self) -> list[Record]:
        """Return a line for each method, seed and update."""
        return [
            {
                "method": label,
                "seed": seed,
                "update": number + 1,
                **{
                    what: record[what][number]
                    for what in record
                    if what.startswith(("accuracy", "seconds ", "equal", "other"))
                    and isinstance(record[what], list)
                },
            }
            for label, records in self.records.items()
            for seed, record in sorted(records.items())
            for number in range(len(record["equal bits"]))
        ]

    def draw(self, path: Path) -> None:
        """Draw a panel for each method: accuracy after each update, means and deviations."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows: dict[str, list[str]] = {}
        for label, method in self.methods.items():
            rows.setdefault(method.protocol, []).append(label)
        width = max(map(len, rows.values()))
        size = (3.4 * max(width, 2), 3.1 * len(rows) + 0.5)
        figure = Figure(figsize=size, dpi=144, layout="constrained")
        axes = figure.subplots(len(rows), width, sharey="row", squeeze=False)
        for row, (protocol, labels) in zip(axes, rows.items(), strict=True):
            for panel, label in zip(row, labels, strict=False):
                self._draw_panel(panel, label)
            row[0].set_ylabel(WORDS[protocol])
            for panel in row[len(labels) :]:
                panel.set_axis_off()
        handles = {}
        for panel in axes.flat:
            found = zip(*panel.get_legend_handles_labels(), strict=True)
            handles |= {label: handle for handle, label in found}
        count = max(map(len, self.records.values()))
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=3,
            frameon=False,
            title=f"mean and standard deviation, {count} seeds",
        )
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
        print(path)

    def _draw_panel(self, axes: Axes, label: str) -> None:
        method = self.methods[label]
        for side in method.sides:
            style = STYLES[side]
            by_update = list(zip(*self.values(label, f"accuracy {side}"), strict=True))
            axes.errorbar(
                [number + style["shift"] for number in range(1, len(by_update) + 1)],
                [mean(each) for each in by_update],
                yerr=[stdev(each) if len(each) > 1 else 0.0 for each in by_update],
                fmt=style["mark"],
                color=style["color"],
                markerfacecolor=style["face"],
                markersize=5.5,
                linewidth=1.2,
                capsize=2.5,
                label=WORDS[side],
            )
        count = len(self.values(label, f"accuracy {method.sides[0]}")[0])
        axes.set_xticks(range(1, count + 1))
        axes.set_xlabel("update")
        axes.set_title(f"{method.name}, {TITLES[method.protocol]}", fontsize="medium", loc="left")
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)


def _three(texts: list[str]) -> list[str]:
    return [*texts, "-"][:3]


HEADER = (
    f"{'':<15}{'accuracy at the end, %':^42}{'':>12}   {'seconds an update':^24}{'beside alone':^16}\n"
    f"{'':<15}{'alone':>14}{'inside':>14}{'native':>14}{'equal bits':>12}   "
    f"{'alone':>8}{'inside':>8}{'native':>8}{'inside':>8}{'native':>8}"
)
WORDS = {
    "alone": "Avalanche alone",
    "inside": "Avalanche inside Renate Stages",
    "native": "native learner",
    "split": "accuracy on all classes so far, %",
    "cifar": "accuracy on all classes so far, %",
    "rotated": "accuracy on all angles so far, %",
}
TITLES = {"split": "Split-MNIST", "cifar": "CIFAR-10", "rotated": "Rotated-MNIST"}
STYLES: dict[str, dict[str, Any]] = {  # Okabe & Ito; the first two lie upon each other
    "alone": {"color": "#E69F00", "mark": "s-", "face": "#E69F00", "shift": -0.12},
    "inside": {"color": "#0072B2", "mark": "o--", "face": "white", "shift": 0.0},
    "native": {"color": "#000000", "mark": "^:", "face": "#000000", "shift": 0.12},
}


if __name__ == "__main__":
    main()
