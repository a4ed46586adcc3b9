"""Renate's experiment suites by `renate-stages simulate`: `make bench NAME=suites DATA=<folder>`.

DATA contains `cifar10-train.parquet`, `cifar10-test.parquet`, and the same of MNIST. The files
`suites/quick-*.yaml` and `suites/main-*.yaml` have Renate's scenarios, models and hyperparameters; each
is a `simulate.yaml`. `--suite NAME` runs one of them, otherwise all quick ones run, with three seeds.
`--quick` uses 200 training rows of each class, one epoch and one seed: a check that all of them run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mnist
import yaml
from report import RESULTS

from renate_stages.files import yaml_file
from renate_stages.simulation import simulate

SUITES = Path(__file__).parent / "suites"
QUICK_ROWS = 200


def main() -> None:
    """Run suites, and print the table of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--suite", help="name of one file in benchmarks/suites")
    parser.add_argument("--quick", action="store_true", help="few rows, one epoch, one seed")
    asked = parser.parse_args()
    known = sorted(path.stem for path in SUITES.glob("*.yaml"))
    if asked.suite is not None and asked.suite not in known:
        sys.exit(f"error: no suite '{asked.suite}'; choose one of {', '.join(known)}")
    names = [asked.suite] if asked.suite else [n for n in known if n.startswith("quick-")]
    complete = True
    for name in names:
        print(f"\n{name}", flush=True)
        arrays = mnist.decoded(asked.data, RESULTS / "arrays", _dataset(name))
        output = RESULTS / "suites" / (f"{name}-quick" if asked.quick else name)
        output.mkdir(parents=True, exist_ok=True)
        path = output / "simulate.yaml"
        path.write_text(_settings(name, arrays, output, asked.quick))
        complete &= simulate(path)
    sys.exit(0 if complete else 1)


def _dataset(name: str) -> str:
    return yaml_file.read(SUITES / f"{name}.yaml")["hyperparameters"]["dataset"]


def _settings(name: str, arrays: Path, output: Path, quick: bool) -> str:
    """Return a suite's settings with the places of this run."""
    settings = yaml_file.read(SUITES / f"{name}.yaml")
    settings["config"] = str(SUITES / "renate_config.py")
    settings["data_path"] = str(arrays.absolute())
    settings["output"] = str(output.absolute())
    if quick:
        settings["seeds"] = [0]
        settings["trainer"] |= {"max_epochs": 1, "accelerator": "cpu"}
        settings["data"] = {
            "arguments": {"rows_per_class": QUICK_ROWS, "test_rows_per_class": QUICK_ROWS}
        }
    return yaml.safe_dump(settings)


if __name__ == "__main__":
    main()
