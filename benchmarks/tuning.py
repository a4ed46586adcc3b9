"""What a search costs: `make bench NAME=tuning [DATA=<folder with MNIST>]`.

Trials per minute: the same search (random, one worker, the same configurations) of the digits' second
update, with a parent, a memory and validation data of both updates: by `renate-stages tune`, whose
trials are forked, and by Syne Tune's Tuner and LocalBackend as they come, whose trials are fresh
interpreters that do the same training. Both as whole processes, start included; once with trials that
train for a moment, and once with trials that train for some seconds. MLflow is off in both.

Then epochs and quality, `pasha` and `rush` beside `asha`: see `search_quality.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from report import Report
from search_quality import compare

ROOT = Path(__file__).parents[1]
LENGTHS = {"short": 2, "longer": 40}  # epochs
SPACES = {"learning_rate": {"loguniform": [0.001, 1.0]}, "momentum": {"uniform": [0.0, 0.95]}}


def main() -> None:
    """Time both ways by turns, for trials of both lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat of six trials")
    parser.add_argument("--data", type=Path, help="folder with MNIST's Parquet files")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        local_backend(arguments.peer)
        return
    trials, repeats = (6, 1) if arguments.quick else (8, 3)
    report = Report("tuning", {"trials": trials, "repeats": repeats, "threads": 1, "seed": 0})
    print(f"{'trials per minute':<44}   median       min       max")
    with TemporaryDirectory() as folder:
        for name, epochs in LENGTHS.items():
            project = make_project(Path(folder) / name, epochs, trials)
            ours: list[float] = []
            theirs: list[float] = []
            forked = ["renate-stages", "tune"]
            fresh = [sys.executable, str(Path(__file__)), "--peer", str(project)]
            for _ in range(repeats):
                ours.append(60 * trials / timed(forked, project))
                theirs.append(60 * trials / timed(fresh, project))
            assert values(project, "local.json") == values(project, "work/tuning/search.json")
            report.add(f"{name} trials, forked", ours)
            report.add(f"{name} trials, LocalBackend", theirs)
            report.add(f"{name} trials, seconds of one by LocalBackend", [60 / t for t in theirs])
            times = median(ours) / median(theirs)
            report.at_least(f"{name} trials: forked over fresh interpreters", times, 3)
    compare(report, *((1, 8) if arguments.quick else (5, 20)), arguments.data)
    report.finish()


def make_project(root: Path, epochs: int, trials: int) -> Path:
    """Make a project at its second update, after `restore-state`."""
    from renate_stages.actions.example_data import write_digits
    from renate_stages.files import yaml_file
    from renate_stages.project import Project
    from renate_stages.stages import prepare, restore_state, train, tune
    from renate_stages.state import state

    root.mkdir()
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(ROOT / name, root / name)
    project = Project(root)

    def change(content: dict) -> None:
        content["tracking"]["enabled"] = False
        content["trainer"]["max_epochs"] = 2

    def go_on(content: dict) -> None:
        content["update"] |= {"number": 2, "parent": 1}
        content["trainer"]["max_epochs"] = epochs
        content["hyperparameters"] |= SPACES
        content["tuning"] |= {"scheduler": "random", "max_trials": trials}

    yaml_file.edit(project.params, change)
    write_digits(project.incoming, 1)
    project.parent.mkdir()
    state.write_empty(project.parent)
    stages: list[Callable] = [prepare.run, restore_state.run, tune.run, train.run]
    for stage in stages:
        stage(project, lambda _: None)
    shutil.rmtree(project.parent)
    project.state.rename(project.parent)
    write_digits(project.incoming, 2)
    yaml_file.edit(project.params, go_on)
    for stage in stages[:2]:
        stage(project, lambda _: None)
    return root


def local_backend(root: Path) -> None:
    """Run the search of a project by Syne Tune's own means; its best value goes to local.json."""
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend

    from renate_stages.params import Params
    from renate_stages.project import Project
    from renate_stages.randomness import Generators
    from renate_stages.tuning.schedulers import make_scheduler

    project = Project(root)
    params = Params.load(project.params)
    seed = Generators(params.seed, params.update.number).integer("tuning")
    epochs = params.trainer.max_epochs or 1
    scheduler = make_scheduler("random", params.search_space, "accuracy", "max", epochs, seed)
    script = Path(__file__).with_name("fresh_trial.py")
    os.environ["RENATE_PROJECT"] = str(root)
    os.environ["SYNETUNE_FOLDER"] = str(root / "syne-tune")
    most = (params.tuning.max_trials or 1) - 1  # Syne Tune ends when there are more
    tuner = Tuner(
        trial_backend=LocalBackend(str(script)),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_trials_finished=most),
        n_workers=1,
    )
    tuner.run()
    assert tuner.tuning_status is not None
    statistics = tuner.tuning_status.trial_metric_statistics.values()
    best = max(each.max_metrics.get("accuracy", 0.0) for each in statistics)
    (root / "local.json").write_text(json.dumps({"best": {"value": best}}))


def values(root: Path, name: str) -> float:
    """Return the best value that a search found, rounded: both did the same trainings."""
    return round(json.loads((root / name).read_text())["best"]["value"], 6)


def timed(command: list[str], folder: Path) -> float:
    """Run a command and return its wall time in seconds."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
