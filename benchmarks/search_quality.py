"""Epochs that a search spends, and what it finds: `pasha` and `rush` beside `asha`.

Three updates of the digits, class by class, each tuned by one scheduler and then trained. ASHA tunes
each update afresh, PASHA too; RUSH knows the trials of the updates before. One worker, so that a
search depends on its seed alone.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import NamedTuple

from report import Report

ROOT = Path(__file__).parents[1]
UPDATES = (1, 2, 3)
EPOCHS = 27
SCHEDULERS = ("asha", "pasha", "rush")
SPACES = {
    "learning_rate": {"loguniform": [0.001, 1.0]},
    "momentum": {"uniform": [0.0, 0.95]},
    "batch_size": {"ordinal": [8, 16, 32, 64]},
}
HALF = 0.5


class Search(NamedTuple):
    """The search of one update.

    Args:
        best: Best accuracy on validation data after each epoch that a trial ran, in their order.
        value: That of the trial that was taken.
    """

    best: list[float]
    value: float

    @property
    def epochs(self) -> int:
        return len(self.best)

    def epochs_to(self, value: float) -> int:
        """Return after how many epochs a value was reached; all of them where it never was."""
        return next((n for n, best in enumerate(self.best, 1) if best >= value), self.epochs)


def compare(report: Report, seeds: int, trials: int) -> None:
    """Run all searches, print them, and give the aims to the report."""
    found = {
        name: [three_updates(name, seed, trials) for seed in range(seeds)] for name in SCHEDULERS
    }
    print(f"\n{'three updates of the digits':<44}   median       min       max")
    for name, runs in found.items():
        report.add(f"{name}: epochs", [sum(each.epochs for each in run) for run in runs])
        report.add(f"{name}: accuracy found", [mean(each.value for each in run) for run in runs])
    asha, pasha, rush = (found[name] for name in SCHEDULERS)
    shares = [
        sum(each.epochs for each in one) / sum(each.epochs for each in other)
        for one, other in zip(pasha, asha, strict=True)
    ]
    report.add("pasha over asha: epochs", shares)
    report.at_most("pasha over asha, epochs", mean(shares), HALF)
    again = [
        sum(one.epochs_to(other.value) for one, other in pairs)
        / sum(other.epochs for _, other in pairs)
        for pairs in (
            list(zip(one, other, strict=True))[1:] for one, other in zip(rush, asha, strict=True)
        )
    ]
    report.add("rush, updates 2 and 3: epochs to asha's value", again)
    report.at_most("rush, updates 2 and 3, epochs to what asha found", mean(again), HALF)
    for name, runs in (("pasha", pasha), ("rush", rush)):
        lost = [
            mean(other.value for other in ours) - mean(one.value for one in run)
            for run, ours in zip(runs, asha, strict=True)
        ]
        report.at_most(f"{name}: accuracy less than asha's", mean(lost), 0.01)


def three_updates(scheduler: str, seed: int, trials: int) -> list[Search]:
    """Tune and train three updates in a project of its own."""
    from renate_stages import files, state, yaml_file
    from renate_stages.data import write_digits
    from renate_stages.project import Project
    from renate_stages.stages import prepare, restore_state, train, tune

    searches = []
    with TemporaryDirectory() as folder:
        for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
            shutil.copy(ROOT / name, Path(folder) / name)
        project = Project(Path(folder))
        project.parent.mkdir()
        state.write_empty(project.parent)
        for number in UPDATES:

            def change(content: dict, number: int = number) -> None:
                content["seed"] = seed
                content["update"] |= {"number": number, "parent": number - 1}
                content["tracking"]["enabled"] = False
                content["trainer"]["max_epochs"] = EPOCHS
                content["hyperparameters"] |= SPACES
                content["tuning"] |= {
                    "scheduler": scheduler,
                    "max_trials": trials,
                    "use_history": scheduler == "rush",
                }

            yaml_file.edit(project.params, change)
            write_digits(project.incoming, number)
            for stage in (prepare, restore_state, tune, train):
                stage.run(project, lambda _: None)
            with (project.tuning / "tuning_history.csv").open(encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if row["update"] == str(number)]
            best, so_far = 0.0, []
            for row in rows:
                best = max(best, float(row["metric.accuracy"]))
                so_far.append(best)
            value = files.read_json(project.tuning / "search.json")["best"]["value"]
            searches.append(Search(so_far, value))
            shutil.rmtree(project.parent)
            project.state.rename(project.parent)
    return searches
