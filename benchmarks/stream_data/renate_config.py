"""Model and data of the four streams of `benchmarks/streams.py`: a `renate_config.py`.

The data depend on the seed alone, so no file is read. Digits are those of scikit-learn; a random 500 of
the 1,797 are the test data. The rows of tables are drawn: four numbers, of which the first two decide
the class by a rule

    y = 1 if cos(angle) x1 + sin(angle) x2 > 0, otherwise 0        (a rotating hyperplane: Hulten et al.,
                                                                    "Mining time-changing data streams", 2001)

and 5 % of the labels are wrong, also in the test data: no model is expected to be better than 0.95.

    drift    the angle grows by 30 degrees from update to update, and nothing in a row shows the update
    seasons  each of three seasons has its own angle, and the third number is its temperature; the rule
             of a season does not follow from those of the other two
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from renate_stages.actions.digits import read_digits
from renate_stages.data import ColumnDataset, RenateDataModule
from renate_stages.models import MLP, RenateModule

TEST_DIGITS = 500
ROWS = 300  # of a table for each update, to train and to test
UPDATES = 5  # of the concept drift
TURN = 30  # degrees from update to update
SEASONS = {"winter": (0, -3.0), "spring": (120, 0.0), "summer": (60, 3.0)}  # angle, temperature
WRONG = 0.05  # share of labels


class Rows(NamedTuple):
    """Rows of one split.

    Args:
        inputs: float32, (n, 8, 8) in [0, 1] or (n, 4).
        targets: Classes, (n,) int64.
        sources: What a scenario groups them by, (n,) texts.
    """

    inputs: np.ndarray
    targets: np.ndarray
    sources: np.ndarray


def draw(stream: str, seed: int) -> dict[str, Rows]:
    """Return the `train` and `test` rows of all updates of a stream."""
    generator = np.random.default_rng([seed, 18])
    if stream == "digits":
        digits = generator.permutation(read_digits())
        inputs = (digits[:, :-1].reshape(-1, 8, 8) / 16).astype(np.float32)
        whole = Rows(inputs, digits[:, -1].astype(np.int64), np.full(len(digits), "digits"))
        return {
            "train": Rows(*(each[TEST_DIGITS:] for each in whole)),
            "test": Rows(*(each[:TEST_DIGITS] for each in whole)),
        }
    if stream == "drift":
        updates = {str(n): (TURN * (n - 1), 0.0) for n in range(1, UPDATES + 1)}
        return {split: _table(updates, ROWS, generator) for split in ("train", "test")}
    rows = {"train": 2 * ROWS, "test": ROWS}  # training rows of two updates
    return {split: _table(SEASONS, count, generator) for split, count in rows.items()}


def _table(
    sources: dict[str, tuple[int, float]], count: int, generator: np.random.Generator
) -> Rows:
    parts = []
    for name, (degrees, temperature) in sources.items():
        inputs = generator.normal(size=(count, 4))
        inputs[:, 2] = temperature + 0.5 * inputs[:, 2]
        angle = np.deg2rad(degrees)
        targets = np.cos(angle) * inputs[:, 0] + np.sin(angle) * inputs[:, 1] > 0
        targets = targets ^ (generator.random(count) < WRONG)
        parts.append((inputs.astype(np.float32), targets.astype(np.int64), np.full(count, name)))
    return Rows(*(np.concatenate(each) for each in zip(*parts, strict=True)))


class Stream(RenateDataModule):
    """The rows of all updates; `data.scenario` cuts them.

    Args:
        data_path: Not read.
        stream: `digits`, `drift` or `seasons`.
        seed: Draws the rows.
    """

    def __init__(self, data_path: str, stream: str, seed: int) -> None:
        super().__init__(data_path, seed=seed)
        self._stream = stream

    def setup(self) -> None:
        found = draw(self._stream, self._seed)
        self._train_data, self._test_data = (
            ColumnDataset(rows.inputs, rows.targets, {"source": rows.sources.tolist()})
            for rows in (found["train"], found["test"])
        )


def data_module_fn(data_path: str, stream: str, seed: int = 0) -> RenateDataModule:
    return Stream(data_path, stream, seed)


def model_fn(
    model_state_url: str | None = None, num_inputs: int = 64, num_outputs: int = 10
) -> RenateModule:
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url))
    return MLP(num_inputs=num_inputs, num_outputs=num_outputs)


def loss_fn() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss(reduction="none")
