"""Which learner under which change of the data: `make bench NAME=streams`.

Four streams of five updates, small enough for a CPU; their data are in
`stream_data/renate_config.py`:

    new classes     scikit-learn's digits, two new classes in each update
    new domains     the digits turned by 0 to 80 degrees, 20 more in each update
    concept drift   a table whose rule turns by 30 degrees with each update, so that old labels are wrong
    seasons         a table with three seasons, each with its own rule; two come again

All rows of a stream are run by `renate-stages simulate`, with the settings of params.yaml and
simulate.yaml, which are tuned for none.
The window is `retention.memory_updates: 1`: rows of the new and of the previous update. After the last
update, the tables show accuracy on all holdouts and on the newest one, that of the parent's model on
the newest holdout before training, and forgetting: mean over the seeds and half of the 95 % interval
(Student's t). The peer is a plain PyTorch loop of fine-tuning on the concept drift.

An aim on two learners looks at the lower end of the 95 % interval of their difference, paired by seed.
`--quick` runs one seed, three updates and three learners; there an aim looks at the difference itself.
"""

from __future__ import annotations

import argparse
import math
import runpy
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from report import RESULTS, Report
from torch import nn

from renate_stages.evaluation.seeds import SeedInterval
from renate_stages.simulation import one_run, simulate
from renate_stages.simulation.settings import read_plan

CONFIG = Path(__file__).parent / "stream_data" / "renate_config.py"
DIGITS = {"num_inputs": 64, "num_outputs": 10}
TABLE = {"num_inputs": 4, "num_outputs": 2}
WINDOW = {"memory_updates": 1}
LEARNERS: tuple[Any, ...] = (
    "FineTuning",
    "ER",
    "DER++",
    "LwF",
    "EWC",
    "Joint",
    {"name": "ER, window", "learner": "ER", "retention": WINDOW},
)
QUICK_LEARNERS = (LEARNERS[0], LEARNERS[1], LEARNERS[6])
RECENT = ("FineTuning", "ER, window")  # learn from the newest rows only
SETTINGS = {
    "optimizer": "SGD",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "batch_size": 32,
    "memory_batch_size": 32,
    "memory_size": 300,
}
EPOCHS, SEEDS, UPDATES, QUICK_UPDATES = 20, 3, 5, 3
FIGURES = ("all holdouts", "newest holdout", "newest, before", "forgetting", "examples kept")
MARGIN = 0.015  # accuracy

Figures = dict[str, dict[str, list[float]]]
"""Values by seed, by learner and name of the figure."""


@dataclass(frozen=True)
class Stream:
    """A stream of updates.

    Args:
        data: Name of its data in the configuration.
        model: Sizes of the model.
        scenario: Cuts the data into updates.
    """

    data: str
    model: dict[str, int]
    scenario: dict[str, Any]


STREAMS = {
    "new classes": Stream("digits", DIGITS, {"name": "class-incremental", "num_tasks": 5}),
    "new domains": Stream("digits", DIGITS, {"name": "rotation", "degrees": [0, 20, 40, 60, 80]}),
    "concept drift": Stream(
        "drift",
        TABLE,
        {"name": "domain-incremental", "groupings": [[str(n)] for n in range(1, 6)]},
    ),
    "seasons": Stream(
        "seasons",
        TABLE,
        {"name": "recurring-domains", "domains": ["winter", "spring", "summer"], "rounds": 2},
    ),
}


def main() -> None:
    """Run the streams; print their tables, then aims and files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1 seed, 3 updates, 3 learners")
    parser.add_argument("--only", nargs="+", choices=STREAMS, metavar="STREAM", help="some of them")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many, from 0 on ({SEEDS})")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each (1)")
    parser.add_argument("--resume", action="store_true", help="do not repeat finished updates")
    asked = parser.parse_args()
    seeds = list(range(1 if asked.quick else asked.seeds))
    form = "-part" if asked.only else "-quick" if asked.quick else ""
    report = Report(f"streams{form}", {"epochs": EPOCHS, "seeds": seeds, "threads": 1})
    complete = True
    for name in asked.only or STREAMS:
        output = RESULTS / ("streams-quick" if asked.quick else "streams") / name.replace(" ", "-")
        if not asked.resume:
            shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True, exist_ok=True)
        path = output / "simulate.yaml"
        path.write_text(settings_of(STREAMS[name], seeds, asked.quick, asked.processes))
        print(f"\n{name}", flush=True)
        complete &= simulate(path, lambda line: print(line.splitlines()[0], flush=True))
        figures = figures_of(path)
        print(table(figures))
        for learner, found in figures.items():
            report.values |= {f"{name}, {learner}, {what}": each for what, each in found.items()}
        compare(report, name, figures, seeds, QUICK_UPDATES if asked.quick else UPDATES)
    if not complete:
        sys.exit("error: a run failed; see above")
    report.finish()


def settings_of(stream: Stream, seeds: Sequence[int], quick: bool, processes: int) -> str:
    """Return the `simulate.yaml` of a stream, whose folder is also that of its results."""
    return yaml.safe_dump(
        {
            "params": None,
            "config": str(CONFIG),
            "data_path": str(CONFIG.parent),
            "output": ".",
            "scenario": stream.scenario,
            "updates": QUICK_UPDATES if quick else UPDATES,
            "learners": list(QUICK_LEARNERS if quick else LEARNERS),
            "seeds": list(seeds),
            "hyperparameters": {**SETTINGS, **stream.model},
            "data": {"arguments": {"stream": stream.data}, "validation_fraction": 0.0},
            "trainer": {"max_epochs": EPOCHS},
            "processes": processes,
        }
    )


def figures_of(path: Path) -> Figures:
    """Return the figures of all runs of a simulation that have finished."""
    plan = read_plan(path)
    figures: Figures = {label: {what: [] for what in FIGURES} for label in plan.labels}
    for run in plan.runs:
        updates = one_run.results_of(plan, run)
        if len(updates) < plan.updates:
            continue
        metrics = updates[-1]["metrics"]
        accuracy = metrics["accuracy"]
        values = (
            accuracy["average"],
            accuracy["holdout"][str(plan.updates)],
            accuracy["prequential"],
            accuracy["forgetting"],
            float(metrics["memory"]["rows"]),
        )
        for what, value in zip(FIGURES, values, strict=True):
            figures[run.label][what].append(value)
    return figures


def table(figures: Figures) -> str:
    """Return the figures in Markdown: mean and half of the 95 % interval over the seeds."""
    lines = [f"| learner | {' | '.join(FIGURES)} |", f"|---|{'---|' * len(FIGURES)}"]
    for learner, found in figures.items():
        *accuracies, rows = (SeedInterval.of(found[what]) for what in FIGURES)
        cells = [
            f"{each.mean:.3f}" + ("" if math.isnan(each.half) else f" ± {each.half:.3f}")
            for each in accuracies
        ]
        lines.append(f"| {learner} | {' | '.join([*cells, f'{rows.mean:.0f}'])} |")
    return "\n".join(lines)


# -- aims -----------------------------------------------------------------------------------------


def compare(
    report: Report, name: str, figures: Figures, seeds: Sequence[int], updates: int
) -> None:
    """Compare learners with each other, and fine-tuning on the concept drift with a plain loop."""
    if name in ("new classes", "seasons"):
        what = f"{name}: ER minus FineTuning, all holdouts"
        report.at_least(what, least(figures, "ER", "FineTuning", "all holdouts"), 0)
    if name != "concept drift":
        return
    recent = [each for each in RECENT if each in figures]
    best = max(recent, key=lambda each: least(figures, each, "ER", "newest holdout"))
    what = f"{name}: {best} minus ER, newest holdout"
    report.at_least(what, least(figures, best, "ER", "newest holdout"), 0)
    plain = [plain_fine_tuning(seed, updates) for seed in seeds]
    report.values[f"{name}, plain loop of fine-tuning, newest holdout"] = plain
    ours = figures["FineTuning"]["newest holdout"]
    difference = SeedInterval.of([a - b for a, b in zip(ours, plain, strict=True)])
    print(f"plain loop of fine-tuning, newest holdout: {np.mean(plain):.3f}")
    half = 0.0 if math.isnan(difference.half) else difference.half
    what = (
        f"{name}: FineTuning and the plain loop, how far the interval of the difference is from 0"
    )
    report.at_most(what, max(0.0, abs(difference.mean) - half), MARGIN)


def least(figures: Figures, better: str, worse: str, what: str) -> float:
    """Return the lower end of the interval of a difference, or with one seed the difference."""
    pairs = zip(figures[better][what], figures[worse][what], strict=True)
    difference = SeedInterval.of([a - b for a, b in pairs])
    return difference.mean - (0.0 if math.isnan(difference.half) else difference.half)


def plain_fine_tuning(seed: int, updates: int) -> float:
    """Return the accuracy on the newest test rows of the concept drift after plain fine-tuning.

    Args:
        seed: Of the data, the weights and the order of rows.
        updates: Number of updates.
    """
    data = runpy.run_path(str(CONFIG))["draw"]("drift", seed)
    sources = [group[0] for group in STREAMS["concept drift"].scenario["groupings"]][:updates]
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    )
    for source in sources:
        inputs, targets = of_source(data["train"], source)
        optimizer = torch.optim.SGD(
            model.parameters(), SETTINGS["learning_rate"], SETTINGS["momentum"]
        )
        steps = -(-len(targets) // SETTINGS["batch_size"])
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(targets)).tensor_split(steps):
                loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    inputs, targets = of_source(data["test"], sources[-1])
    with torch.inference_mode():
        return float((model(inputs).argmax(1) == targets).float().mean())


def of_source(rows: Any, source: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets of the rows of one source."""
    chosen = rows.sources == source
    return torch.from_numpy(rows.inputs[chosen]), torch.from_numpy(rows.targets[chosen])


if __name__ == "__main__":
    main()
