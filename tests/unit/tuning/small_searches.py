"""A small project with faults set by a hyperparameter, and helpers for trials and searches."""

from __future__ import annotations

import csv
import itertools
import shutil

from small_project import REPOSITORY, edit_config, edit_params

from renate_stages import files
from renate_stages.project import Project
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.state import state
from renate_stages.tuning.trials import Trials

FIRST_NUMBERS = itertools.count(0, 1000)
SPACES = {
    "hyperparameters__learning_rate": {"loguniform": [0.001, 1.0]},
    "hyperparameters__momentum": {"uniform": [0.0, 0.95]},
}
SEARCH = {"scheduler": "random", "max_trials": 3}
CONSTANTS = {"batch_size": 32, "memory_size": 100}
FAULTS = '''
def fail(fault: str) -> None:
    """Fail in the way that the hyperparameter `fault` names."""
    import os, subprocess, sys, time

    print("process", os.getpid(), flush=True)
    if fault == "exit":
        os._exit(7)
    if fault == "kill":
        os.kill(os.getpid(), 9)
    if fault == "raise":
        raise RuntimeError("as the fault says")
    if fault == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        print("process", child.pid, flush=True)
        time.sleep(1000)


def model_fn('''


def quiet(message: str) -> None:
    assert message


def make_project(root, epochs: int = 3, update: int = 1) -> Project:
    """Create a project at update 1 or 2 and run its stages up to `restore-state`."""
    from renate_stages.actions.example_data import write_digits

    root.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, root / name)
    project = Project(root)
    write_digits(project.incoming, 1)
    project.parent.mkdir()
    state.write_empty(project.parent)
    edit_params(project, trainer__max_epochs=epochs, tracking__enabled=False)
    edit_config(project, "def model_fn(", FAULTS.strip())
    edit_config(project, "hidden_size: int = 128)", 'hidden_size: int = 128, fault: str = "")')
    edit_config(project, "    if model_state_url", "    fail(fault)\n    if model_state_url")
    if update == 2:
        for stage in (prepare, restore_state, tune, train):
            stage.run(project, quiet)
        shutil.rmtree(project.parent)
        project.state.rename(project.parent)
        write_digits(project.incoming, 2)
        edit_params(project, update__number=2, update__parent=1)
    prepare.run(project, quiet)
    restore_state.run(project, quiet)
    return project


class SharedProcesses:
    """Processes shared by several searches: closing a search does not close them."""

    def __init__(self, shared) -> None:
        self.start, self.kill, self.ended = shared.start, shared.kill, shared.ended

    def close(self) -> None:
        pass


def make_trials(folder, processes) -> Trials:
    made = Trials(folder, SharedProcesses(processes), lambda sample: {**CONSTANTS, **sample})
    made._started = next(FIRST_NUMBERS)  # shared processes must not get a number twice
    return made


def run_to_end(trials: Trials, *numbers: int) -> dict[int, list[dict]]:
    """Run trials until they end; return the reports of each."""
    reports: dict[int, list[dict]] = {number: [] for number in numbers}
    running = set(numbers)
    while running:
        statuses, results = trials.fetch_status_results(sorted(running))
        for number, result in results:
            reports[number].append(result)
        running -= {n for n, (_, status) in statuses.items() if status != "InProgress"}
    return reports


def searched(project, **changes) -> dict:
    """Run `tune` and return the content of its search.json."""
    edit_params(project, **{**SPACES, "tuning": SEARCH, **changes})
    tune.run(project, quiet)
    return files.read_json(project.tuning / "search.json")


def rows(project) -> list[dict[str, str]]:
    """Return the rows of tuning_history.csv, with the trials of all updates."""
    text = (project.tuning / "tuning_history.csv").read_text()
    return list(csv.DictReader(text.splitlines()))
