"""What an update reports under each change of the data: `make bench NAME=stream_signs`.

The streams are those of `streams.py`; one seed. ER runs all updates, with shift tests. The
table shows the last update: effect and p-value of the tests of the inputs (mmd) and of the labels
(label_chi2) against the parent's holdouts, and the accuracy of the parent's model on the new holdout,
on the holdout of the update before, and on all holdouts of earlier updates.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from report import Report
from streams import CONFIG, EPOCHS, SETTINGS, STREAMS, UPDATES, Stream

from renate_stages import run_training_job

TESTS = ("mmd", "label_chi2")
SHOWN = (
    "inputs: effect, p",
    "labels: effect, p",
    "parent on new",
    "on the last holdout",
    "on all earlier holdouts",
)


def main() -> None:
    """Run the updates; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STREAMS, metavar="STREAM", help="some of them")
    parser.add_argument("--learners", nargs="+", default=["ER"], metavar="LEARNER")
    asked = parser.parse_args()
    settings = {"epochs": EPOCHS, "seeds": [0], "threads": 1, "learners": asked.learners}
    report = Report("stream_signs", settings)
    rows = [f"| change, learner | {' | '.join(SHOWN)} |", f"|---|{'---|' * len(SHOWN)}"]
    for name in asked.only or STREAMS:
        for learner in asked.learners:
            values = signs(STREAMS[name], learner)
            report.values |= {f"{name}, {learner}, {what}": [v] for what, v in values.items()}
            tests = [f"{values[f'{t}, effect']:.2f}, {values[f'{t}, p']:.3f}" for t in TESTS]
            accuracies = [f"{values[what]:.3f}" for what in ("new", "last holdout", "holdouts")]
            rows.append(f"| {name}, {learner} | {' | '.join([*tests, *accuracies])} |")
    print("\n".join(rows))
    report.finish()


def signs(stream: Stream, learner: str) -> dict[str, float]:
    """Run all updates of a stream, and return the figures of the last one."""
    holdouts: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        for number in range(1, UPDATES + 1):
            result = run_training_job(
                {**SETTINGS, **stream.model},
                updater=learner,
                max_epochs=EPOCHS,
                config_file=CONFIG,
                data_path=CONFIG.parent,
                data={
                    "arguments": {"stream": stream.data},
                    "scenario": stream.scenario,
                    "validation_fraction": 0.0,
                },
                shift={"tests": list(TESTS)},
                input_state_url=_state(folder, number - 1) if number > 1 else None,
                output_state_url=_state(folder, number),
                working_directory=Path(folder) / "work",
            )
            accuracy = result.metrics["accuracy"]
            if number < UPDATES:
                holdouts = accuracy["holdout"]
    tests: dict[str, Any] = result.data["shift"]["tests"]
    return {
        **{f"{name}, effect": tests[name]["effect_size"] for name in TESTS},
        **{f"{name}, p": tests[name]["p_value"] for name in TESTS},
        "new": accuracy["prequential"],
        "last holdout": holdouts[str(UPDATES - 1)],
        "holdouts": fmean(holdouts.values()),
    }


def _state(folder: str, number: int) -> Path:
    return Path(folder) / f"state-{number}"


if __name__ == "__main__":
    main()
