"""What each learner keeps of the digits after three updates: `make bench NAME=forgetting`.

Handwritten digits arrive class by class (0-3, 4-6, 7-9); the settings are the demo's. Prints the
table in the README. The peer that forgets, FineTuning, is in the same run. With `--all`, every learner
runs with the same settings, which are tuned for none: the table of docs/learners.md. `--memory 100`
keeps fewer examples. With `--permuted`, each update has all digits, with its own order of the pixels.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from report import Report

from renate_stages import run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.files import yaml_file
from renate_stages.learners import registry

ROOT = Path(__file__).parents[1]
CLASSES = ("digits 0-3", "digits 4-6", "digits 7-9")
PERMUTED = {"name": "permutation", "num_tasks": 3, "input_dim": 64}
AIMS = {"ER": (0.90, 1.0), "Joint": (0.94, 1.0), "FineTuning": (0.0, 0.50)}


def main() -> None:
    """Run three updates with each learner, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="every learner, not only those with aims"
    )
    parser.add_argument("--only", nargs="+", metavar="LEARNER", help="these learners")
    parser.add_argument("--memory", type=int, metavar="N", help="examples to keep")
    parser.add_argument("--permuted", action="store_true", help="updates of permuted pixels")
    asked = parser.parse_args()
    learners = asked.only or (list(registry.LEARNERS) if asked.all else list(AIMS))
    params = yaml_file.read(ROOT / "params.yaml")
    if asked.memory is not None:
        params["hyperparameters"]["memory_size"] = asked.memory
    parts = "permuted pixels" if asked.permuted else "digits by class"
    settings = {"seed": params["seed"], "threads": params["trainer"]["threads"], "updates": parts}
    report = Report("forgetting", settings)
    rows = []
    for learner in learners:
        started = time.perf_counter()
        figures = three_updates(learner, params, permuted=asked.permuted)
        seconds = time.perf_counter() - started
        accuracy = figures["accuracy"]
        value = accuracy["overall"]
        report.values[learner] = [value, *accuracy["holdout"].values()]
        report.values[f"{learner}, seconds"] = [seconds]
        if learner in AIMS and not (asked.permuted or asked.memory):
            least, most = AIMS[learner]
            report.at_least(f"{learner}, accuracy over all classes", value, least)
            report.at_most(f"{learner}, accuracy over all classes", value, most)
        holdout = " | ".join(f"{each:.3f}" for each in accuracy["holdout"].values())
        rows.append(f"| {learner} | {value:.3f} | {holdout} | {figures['memory']['rows']} |")
    holdouts = ("update 1", "update 2", "update 3") if asked.permuted else CLASSES
    overall = "all updates" if asked.permuted else "all classes"
    print(f"| learner | {' | '.join((overall, *holdouts))} | examples kept |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    report.finish()


def three_updates(learner: str, params: dict, *, permuted: bool = False) -> dict:
    """Return the metrics after the third update, of digits by class or of permuted pixels."""
    with TemporaryDirectory() as folder:
        source, metrics = None, {}
        for number in (1, 2, 3):
            write_digits(Path(folder) / "data", None if permuted else number)
            target = Path(folder) / f"state-{number}"
            metrics = run_training_job(
                params["hyperparameters"],
                updater=learner,
                max_epochs=params["trainer"]["max_epochs"],
                config_file=ROOT / "renate_config.py",
                data_path=Path(folder) / "data",
                data={"scenario": PERMUTED if permuted else None},
                input_state_url=source,
                output_state_url=target,
                seed=params["seed"],
            ).metrics
            source = target
        return metrics


if __name__ == "__main__":
    main()
