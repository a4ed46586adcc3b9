"""Figure 2 of Renate's paper, ER against DER: `make bench NAME=figure2 DATA=<folder>`.

DATA contains `cifar10-train.parquet` and `cifar10-test.parquet`. Class-incremental CIFAR-10 in five
updates of two classes, a memory of 500, hyperparameters of Buzzega et al., NeurIPS 2020. The paper
found DER ahead in the published order of classes, no longer ahead in another order, and ahead again if
hyperparameters are tuned at each update. Three questions, each by `renate-stages simulate`:

    published   the published order, several seeds: is DER ahead of ER?
    orders      other orders, one seed each: is it ahead on average?
    tuned       these orders again; a search at each update chooses learning rate and alpha

The difference is DER - ER of the average accuracy after the last update, paired by seed or order, with
its 95 % interval (Student's t). The default form uses a small CNN, a tenth of the training rows, a
fifth of the test rows and five other orders; it takes about two hours on 2 cores. `--full` is the
paper's ResNet-18 with 50 epochs and ten other orders, on a GPU; `--quick` has two seeds and orders and
few rows, and shows only that everything runs. The table is written after each question.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mnist
import numpy as np
import yaml
from report import RESULTS
from runs import Interval

from renate_stages.simulation import simulate

CONFIG = Path(__file__).parent / "suites" / "renate_config.py"
CLASSES = 10
PUBLISHED = [[2 * n, 2 * n + 1] for n in range(CLASSES // 2)]
SPACES = {
    "ER": {"learning_rate": {"loguniform": [0.003, 0.3]}},
    "DER": {"learning_rate": {"loguniform": [0.003, 0.3]}, "alpha": {"uniform": [0.1, 1.0]}},
}


class Form(NamedTuple):
    """How large the experiment is.

    Args:
        model: Name of the model in `suites/renate_config.py`.
        width: Channels of the first convolution of the small CNN.
        rows: Training rows of each class; None: all.
        test_rows: Test rows of each class; None: all.
        epochs: Passes over the new data.
        seeds: Seeds of the published order.
        orders: Number of other orders.
        trials: Trials of each search.
        accelerator: As in `params.yaml`.
        rates: Learning rate of each learner. The published ones are for ResNet-18.
    """

    model: str
    width: int
    rows: int | None
    test_rows: int | None
    epochs: int
    seeds: int
    orders: int
    trials: int
    accelerator: str
    rates: Mapping[str, float]


PAPER_RATES = {"ER": 0.1, "DER": 0.03}
FORMS = {
    "small": Form("small_cnn", 16, 500, 200, 10, 10, 5, 8, "cpu", PAPER_RATES),
    "quick": Form("small_cnn", 16, 60, 50, 2, 2, 2, 2, "cpu", PAPER_RATES),
    "full": Form("resnet18", 0, None, None, 50, 10, 10, 20, "gpu", PAPER_RATES),
}


def main() -> None:
    """Run the simulations, and print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--quick", action="store_true", help="few rows, two seeds and orders")
    parser.add_argument("--full", action="store_true", help="ResNet-18, all rows, on a GPU")
    asked = parser.parse_args()
    name = "quick" if asked.quick else "full" if asked.full else "small"
    form = FORMS[name]
    arrays = mnist.decoded(asked.data, RESULTS / "arrays", "cifar10")
    output = RESULTS / "figure2" / name
    orders = other_orders(form.orders)
    lines: list[tuple[str, Mapping[str, Sequence[float]]]] = []
    published = run(form, arrays, output / "published", PUBLISHED, range(form.seeds), tuned=False)
    lines.append(("published order", published))
    write_table(lines, output)
    for tuned in (False, True):
        found: dict[str, list[float]] = {}
        for number, order in enumerate(orders):
            folder = output / f"order-{number}{'-tuned' if tuned else ''}"
            for learner, values in run(form, arrays, folder, order, [number], tuned=tuned).items():
                found.setdefault(learner, []).extend(values)
        lines.append((f"{form.orders} other orders{', tuned' if tuned else ''}", found))
        write_table(lines, output)


def run(
    form: Form,
    arrays: Path,
    output: Path,
    order: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    tuned: bool,
) -> dict[str, list[float]]:
    """Return the average accuracy after the last update, of each learner and seed."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "simulate.yaml"
    path.write_text(yaml.safe_dump(_settings(form, arrays, output, order, seeds, tuned)))
    if not simulate(path):
        raise SystemExit(f"error: a run failed; see {output}/report.md")
    with (output / "updates.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["update"] == str(len(order))]
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["learner"], []).append(float(row["average"]))
    return values


def other_orders(count: int) -> list[list[list[int]]]:
    """Return random orders of the classes, as five groups of two."""
    draw = np.random.default_rng(2023)
    return [draw.permutation(CLASSES).reshape(-1, 2).tolist() for _ in range(count)]


def write_table(lines: Sequence[tuple[str, Mapping[str, Sequence[float]]]], output: Path) -> None:
    """Write the answers so far to `figure2.md`, and print them."""
    text = table(lines)
    (output / "figure2.md").write_text(f"{text}\n", encoding="utf-8")
    print(f"\n{text}\n\n{output / 'figure2.md'}", flush=True)


def table(lines: Sequence[tuple[str, Mapping[str, Sequence[float]]]]) -> str:
    """Return the accuracies in percent, and the difference DER - ER with its interval."""
    rows = ["| | ER | DER | DER - ER |", "|---|---|---|---|"]
    for what, values in lines:
        means = [f"{100 * np.mean(values[learner]):.1f}" for learner in ("ER", "DER")]
        pairs = zip(values["DER"], values["ER"], strict=True)
        gap = Interval.of([100 * (der - er) for der, er in pairs])
        rows.append(f"| {what} | {' | '.join(means)} | {gap.mean:+.1f} ({gap.ends}) |")
    return "\n".join(rows)


def _settings(
    form: Form,
    arrays: Path,
    output: Path,
    order: Sequence[Sequence[int]],
    seeds: Sequence[int],
    tuned: bool,
) -> dict[str, Any]:
    """Return the content of `simulate.yaml`."""
    learners = []
    for learner, rate in form.rates.items():
        own = SPACES[learner] if tuned else {"learning_rate": rate}
        alpha = {"alpha": 0.3} if learner == "DER" else {}
        learners.append({"learner": learner, "hyperparameters": {**alpha, **own}})
    return {
        "config": str(CONFIG),
        "params": None,
        "data_path": str(arrays.absolute()),
        "output": str(output.absolute()),
        "scenario": {"name": "class-incremental", "groupings": [list(each) for each in order]},
        "learners": learners,
        "seeds": list(seeds),
        "hyperparameters": {
            "dataset": "cifar10",
            "model": form.model,
            "width": form.width,
            "batch_size": 32,
            "memory_batch_size": 32,
            "memory_size": 500,
            "memory_update": "online",
        },
        "data": {
            "arguments": {
                "rows_per_class": form.rows,
                "test_rows_per_class": form.test_rows,
                "val_size": 0.1,
            }
        },
        "trainer": {"max_epochs": form.epochs, "accelerator": form.accelerator},
        "tuning": {"max_trials": form.trials},
        **({"processes": 1} if form.accelerator == "gpu" else {}),
    }


if __name__ == "__main__":
    main()
