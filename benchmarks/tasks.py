"""Replay against fine-tuning for each task, on the data of earlier updates: `make bench NAME=tasks`.

Handwritten digits arrive class by class (0-3, 4-6, 7-9) with the targets of each task; for regression,
the patients of scikit-learn's diabetes data arrive by body mass. Prints the table of docs/tasks.md.
Every figure that an update reports is compared with scikit-learn's, from the predictions of the model
that the job returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from report import Report
from sklearn import metrics
from sklearn.datasets import load_diabetes, load_digits

from renate_stages import run_training_job
from renate_stages.evaluation.comparison import difference_interval

CONFIG = """
import numpy as np
import torch
from renate_stages.data import RenateDataModule
from torch import nn
from torch.utils.data import TensorDataset


class Arrays(RenateDataModule):
    def setup(self):
        data = {{k: torch.from_numpy(v) for k, v in np.load(self._data_path / "data.npz").items()}}
        self._train_data = TensorDataset(data["x"], data["y"])
        self._test_data = TensorDataset(data["xt"], data["yt"])


def data_module_fn(data_path: str, seed: int = 0):
    return Arrays(data_path, seed=seed)


def model_fn(model_state_url: str | None = None):
    shape = {outputs}
    layers = nn.Linear({inputs}, 64), nn.ReLU(), nn.Linear(64, int(np.prod(shape)))
    model = nn.Sequential(*layers, nn.Unflatten(1, shape))
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model
"""
VALUES = {"learning_rate": 0.05, "momentum": 0.9, "batch_size": 32}
IGNORED = -100
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A task with its data and its figure.

    Args:
        task: Name of the task.
        outputs: Shape of the outputs of one row.
        metric: The headline metric; lower is better for `mse`.
        updates: Arrays of each update.
        scores: Returns numerator and divisor of each row, `(rows, 2)`, from outputs and targets.
        sklearn: Returns scikit-learn's figure from outputs and targets.
    """

    task: str
    outputs: tuple[int, ...]
    metric: str
    updates: list[Arrays]
    scores: Callable[[np.ndarray, np.ndarray], np.ndarray]
    sklearn: Callable[[np.ndarray, np.ndarray], float]


def main() -> None:
    """Run three updates of each task with both learners, and print the table."""
    report = Report("tasks", {"seed": 0, "threads": 1})
    print(
        "| task | figure on the two earlier holdouts | ER | FineTuning | ER - FineTuning (95 %) |"
    )
    print("|---|---|---|---|---|")
    for case in cases():
        kept, forgot = (three_updates(case, learner) for learner in ("ER", "FineTuning"))
        figures = [sum_of(each)[0] / sum_of(each)[1] for each in (kept, forgot)]
        drawn = np.random.default_rng(0)
        low, high = difference_interval(forgot, kept, drawn, average=False)
        print(
            f"| {case.task} | {case.metric} | {figures[0]:.3f} | {figures[1]:.3f} | "
            f"{figures[0] - figures[1]:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
        report.values[case.task] = [*figures, low, high]
        gain = -high if case.metric == "mse" else low
        report.at_least(f"{case.task}, the end of the interval towards no gain", gain, 0.0)
    report.finish()


def sum_of(scores: dict[int, np.ndarray]) -> np.ndarray:
    """Return the sums of numerators and divisors over all rows."""
    return np.concatenate(list(scores.values())).sum(axis=0)


def three_updates(case: Case, learner: str) -> dict[int, np.ndarray]:
    """Return the scores of the third model on each row of the first two holdouts.

    Raises:
        SystemExit: If a reported figure differs from scikit-learn's.
    """
    more = {"memory_size": 150, "memory_batch_size": 32} if learner == "ER" else {}
    with TemporaryDirectory() as scratch:
        folder, result = Path(scratch), None
        inputs = case.updates[0]["x"].shape[1]
        config = folder / "renate_config.py"
        config.write_text(CONFIG.format(inputs=inputs, outputs=case.outputs))
        for number, arrays in enumerate(case.updates, 1):
            (folder / f"data-{number}").mkdir()
            np.savez(folder / f"data-{number}" / "data.npz", **arrays)  # pyright: ignore[reportArgumentType]
            result = run_training_job(
                VALUES | more,
                mode="min" if case.metric == "mse" else "max",
                metric=case.metric,
                updater=learner,
                max_epochs=20,
                task=case.task,
                config_file=config,
                data_path=folder / f"data-{number}",
                input_state_url=folder / f"state-{number - 1}" if number > 1 else None,
                output_state_url=folder / f"state-{number}",
                working_directory=folder / "work",
            )
        assert result is not None and result.model is not None
        with torch.inference_mode():
            outputs = [result.model(torch.from_numpy(each["xt"])).numpy() for each in case.updates]
    targets = [each["yt"] for each in case.updates]
    expected = case.sklearn(np.concatenate(outputs), np.concatenate(targets))
    reported = result.metrics[case.metric]["overall"]
    if abs(reported - expected) > 1e-5 * max(1, abs(expected)):
        raise SystemExit(f"{case.task}: reported {reported}, scikit-learn gives {expected}")
    return {n: case.scores(outputs[n - 1], targets[n - 1]) for n in (1, 2)}


# -- tasks ----------------------------------------------------------------------------------------


def cases() -> list[Case]:
    """Return each task with its data."""
    return [
        Case("classification", (10,), "accuracy", digits(lambda y, _: y), _label, _of_labels),
        Case("binary", (1,), "accuracy", digits(lambda y, _: y % 2), _sign, _of_signs),
        Case("multilabel", (3,), "accuracy", digits(_attributes), _signs, _of_attributes),
        Case("regression", (1,), "mse", diabetes(), _error, _of_errors),
        Case("ranking", (10,), "ndcg", digits(_relevance), _gains, _of_gains),
        Case("tokens", (8, 10), "accuracy", digits(_rows_of_ink), _tokens, _of_tokens),
    ]


def digits(targets_of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[Arrays]:
    """Return updates with the digits 0-3, 4-6 and 7-9; a fifth of each is for testing."""
    x, y = map(np.asarray, load_digits(return_X_y=True))
    groups = np.digitize(y, (4, 7))
    x = (x / 16).astype(np.float32)
    return [
        divided(x[groups == g], targets_of(y, x)[groups == g].astype(np.int64)) for g in range(3)
    ]


def diabetes() -> list[Arrays]:
    """Return updates with patients of low, medium and high body mass."""
    x, y = map(np.asarray, load_diabetes(return_X_y=True))
    x, y = (x / x.std(0)).astype(np.float32), ((y - y.mean()) / y.std()).astype(np.float32)
    return [divided(x[rows], y[rows]) for rows in np.array_split(np.argsort(x[:, 2]), 3)]


def divided(x: np.ndarray, y: np.ndarray) -> Arrays:
    """Return training and test arrays."""
    order = np.random.default_rng(0).permutation(len(x))
    train, test = np.split(order, [len(x) * 4 // 5])
    return {"x": x[train], "y": y[train], "xt": x[test], "yt": y[test]}


def _attributes(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Whether a digit is even, above 4, and has a loop."""
    return np.stack([y % 2 == 0, y > 4, np.isin(y, (0, 6, 8, 9))], axis=1)


def _relevance(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Rank the ten digits for an image: 3 for its own, and 1 for those with the same attributes."""
    of_digits = _attributes(np.arange(10), x)
    alike = (of_digits[y][:, None, :] == of_digits[None]).all(axis=2)
    return np.where(np.arange(10) == y[:, None], 3, alike.astype(int))


def _rows_of_ink(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Label each row of an image with its digit; rows with little ink are ignored."""
    return np.where(x.reshape(-1, 8, 8).sum(axis=2) > 1, y[:, None], IGNORED)


def _means(right: np.ndarray) -> np.ndarray:
    return np.stack([right, np.ones(len(right))], axis=1).astype(float)


def _label(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return _means(outputs.argmax(1) == targets)


def _of_labels(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(metrics.accuracy_score(targets, outputs.argmax(1)))


def _sign(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return _means((outputs[:, 0] > 0) == targets)


def _of_signs(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(metrics.accuracy_score(targets, outputs[:, 0] > 0))


def _signs(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return _means(((outputs > 0) == targets).mean(axis=1))


def _of_attributes(outputs: np.ndarray, targets: np.ndarray) -> float:
    return 1 - float(metrics.hamming_loss(targets, outputs > 0))


def _error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return _means(np.square(outputs[:, 0] - targets))


def _of_errors(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(metrics.mean_squared_error(targets, outputs[:, 0]))


def _gains(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    pairs = zip(targets, outputs, strict=True)
    return _means(np.array([metrics.ndcg_score([y], [scores]) for y, scores in pairs]))


def _of_gains(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(metrics.ndcg_score(targets, outputs))


def _tokens(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    counted = targets != IGNORED
    right = (outputs.argmax(2) == targets) & counted
    return np.stack([right.sum(axis=1), counted.sum(axis=1)], axis=1).astype(float)


def _of_tokens(outputs: np.ndarray, targets: np.ndarray) -> float:
    counted = targets != IGNORED
    return float(metrics.accuracy_score(targets[counted], outputs.argmax(2)[counted]))


if __name__ == "__main__":
    main()
