"""What each learner keeps of the digits after three updates: `make bench NAME=forgetting`.

Handwritten digits arrive class by class (0-3, 4-6, 7-9); the settings are the demo's. Prints the
table that stands in the README. The peer that forgets, FineTuning, is in the same run. With `--all`
every learner is, at the same settings, tuned for none: the table of docs/learners.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from report import Report

from renate_stages import run_training_job
from renate_stages.actions.digits import write_digits
from renate_stages.files import yaml_file
from renate_stages.learners import registry

ROOT = Path(__file__).parents[1]
AIMS = {"ER": (0.90, 1.0), "Joint": (0.94, 1.0), "FineTuning": (0.0, 0.50)}


def main() -> None:
    """Run three updates with each learner, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="every learner, not only those with aims"
    )
    learners = list(registry.LEARNERS) if parser.parse_args().all else list(AIMS)
    params = yaml_file.read(ROOT / "params.yaml")
    report = Report("forgetting", {"seed": params["seed"], "threads": params["trainer"]["threads"]})
    rows = []
    for learner in learners:
        started = time.perf_counter()
        figures = three_updates(learner, params)
        seconds = time.perf_counter() - started
        accuracy = figures["accuracy"]
        overall = accuracy["overall"]
        report.values[learner] = [overall, *accuracy["holdout"].values()]
        report.values[f"{learner}, seconds"] = [seconds]
        if learner in AIMS:
            least, most = AIMS[learner]
            report.at_least(f"{learner}, accuracy over all classes", overall, least)
            report.at_most(f"{learner}, accuracy over all classes", overall, most)
        each = " | ".join(f"{value:.3f}" for value in accuracy["holdout"].values())
        rows.append(f"| {learner} | {overall:.3f} | {each} | {figures['memory']['rows']} |")
    print("| learner | all classes | digits 0-3 | digits 4-6 | digits 7-9 | examples kept |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    report.finish()


def three_updates(learner: str, params: dict) -> dict:
    """Return the metrics after the third update."""
    with TemporaryDirectory() as folder:
        source, metrics = None, {}
        for number in (1, 2, 3):
            write_digits(Path(folder) / "data", number)
            target = Path(folder) / f"state-{number}"
            metrics = run_training_job(
                params["hyperparameters"],
                updater=learner,
                max_epochs=params["trainer"]["max_epochs"],
                config_file=ROOT / "renate_config.py",
                data_path=Path(folder) / "data",
                input_state_url=source,
                output_state_url=target,
                seed=params["seed"],
            ).metrics
            source = target
        return metrics


if __name__ == "__main__":
    main()
