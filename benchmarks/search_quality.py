"""Epochs that a search spends, and what it finds: `pasha` and `rush` beside `asha`.

Three updates, class by class, each tuned by one scheduler and then trained: of the digits, and of 3,000
images of MNIST where there are any. ASHA tunes each update afresh, PASHA too; RUSH knows the trials of
the updates before. One worker, so that a search depends on its seed alone.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
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
MNIST_ROWS = 3000
FOR_MNIST = {"num_inputs=64": "num_inputs=784", "images.float() / 16": "images.float() / 255"}
WriteData = Callable[[Path, int], None]


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


def compare(report: Report, seeds: int, trials: int, data: Path | None = None) -> None:
    """Run all searches, print them, and give the aims to the report.

    Args:
        report: Takes them.
        seeds: How many.
        trials: Of each search.
        data: Folder with MNIST's Parquet files; None: the digits alone.
    """
    from renate_stages.actions.example_data import write_digits

    compare_on(report, "digits", write_digits, {}, seeds, trials)
    if data is not None:
        with TemporaryDirectory() as folder:
            compare_on(report, "MNIST", mnist_writer(data, Path(folder)), FOR_MNIST, seeds, trials)


def mnist_writer(data: Path, folder: Path) -> WriteData:
    """Return what writes the images of an update, 3,000 over all, as the digits are written."""
    import mnist
    import numpy as np

    from renate_stages.actions.digits import CLASSES, INPUTS, TARGETS

    mnist.decode(data, folder)
    images = mnist.load(folder)[0].at(slice(MNIST_ROWS))

    def write(target: Path, update: int) -> None:
        chosen = images.of_classes(*CLASSES[update])
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        np.save(target / INPUTS, chosen.inputs)
        np.save(target / TARGETS, chosen.labels)

    return write


def compare_on(
    report: Report,
    name: str,
    write: WriteData,
    config: dict[str, str],
    seeds: int,
    trials: int,
) -> None:
    """Run all searches on one set of data; arguments as of `three_updates` and `compare`."""
    found = {
        scheduler: [three_updates(scheduler, seed, trials, write, config) for seed in range(seeds)]
        for scheduler in SCHEDULERS
    }
    print(f"\n{f'three updates of {name}':<44}   median       min       max")
    for scheduler, runs in found.items():
        spent = [sum(each.epochs for each in run) for run in runs]
        report.add(f"{name}, {scheduler}: epochs", spent)
        values = [mean(each.value for each in run) for run in runs]
        report.add(f"{name}, {scheduler}: accuracy found", values)
    asha, pasha, rush = (found[name] for name in SCHEDULERS)
    shares = [
        sum(each.epochs for each in one) / sum(each.epochs for each in other)
        for one, other in zip(pasha, asha, strict=True)
    ]
    report.add(f"{name}, pasha over asha: epochs", shares)
    report.at_most(f"{name}, pasha over asha, epochs", mean(shares), HALF)
    again = [
        sum(one.epochs_to(other.value) for one, other in pairs)
        / sum(other.epochs for _, other in pairs)
        for pairs in (
            list(zip(one, other, strict=True))[1:] for one, other in zip(rush, asha, strict=True)
        )
    ]
    report.add(f"{name}, rush, updates 2 and 3: epochs to asha's value", again)
    report.at_most(f"{name}, rush, updates 2 and 3, epochs to asha's value", mean(again), HALF)
    for scheduler, runs in (("pasha", pasha), ("rush", rush)):
        lost = [
            mean(other.value for other in ours) - mean(one.value for one in run)
            for run, ours in zip(runs, asha, strict=True)
        ]
        report.at_most(f"{name}, {scheduler}: accuracy less than asha's", mean(lost), 0.01)


def three_updates(
    scheduler: str, seed: int, trials: int, write: WriteData, config: dict[str, str]
) -> list[Search]:
    """Tune and train three updates in a project of its own.

    Args:
        scheduler: Its name.
        seed: Of the project.
        trials: Of each search.
        write: Writes the data of an update into a folder.
        config: What is replaced in the digits' `renate_config.py`.
    """
    from renate_stages import files
    from renate_stages.files import yaml_file
    from renate_stages.project import Project
    from renate_stages.stages import prepare, restore_state, train, tune
    from renate_stages.state import state

    searches = []
    with TemporaryDirectory() as folder:
        for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
            shutil.copy(ROOT / name, Path(folder) / name)
        project = Project(Path(folder))
        functions = project.user_config.read_text()
        for old, new in config.items():
            functions = functions.replace(old, new)
        project.user_config.write_text(functions)
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
            write(project.incoming, number)
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
