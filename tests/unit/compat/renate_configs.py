"""Two projects as a user of Renate 0.5.2 has them, which import `renate`; and their data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

OWN_MODEL = """
import os
from typing import Optional, Union
from pathlib import Path

import torch
import torchmetrics
from renate import defaults
from renate.data.data_module import RenateDataModule
from renate.models import RenateModule
from torch.utils.data import TensorDataset


class DigitsMLP(RenateModule):
    def __init__(self, num_hidden: int) -> None:
        super().__init__(constructor_arguments={"num_hidden": num_hidden})
        self._fc1 = torch.nn.Linear(64, num_hidden)
        self._fc2 = torch.nn.Linear(num_hidden, 10)

    def forward(self, x: torch.Tensor, task_id: Optional[str] = None) -> torch.Tensor:
        return self._fc2(torch.nn.functional.relu(self._fc1(torch.flatten(x, 1))))


class DigitsDataModule(RenateDataModule):
    def __init__(
        self,
        data_path: Union[Path, str],
        val_size: float = defaults.VALIDATION_SIZE,
        seed: int = defaults.SEED,
    ) -> None:
        super().__init__(data_path, val_size=val_size, seed=seed)

    def prepare_data(self) -> None:
        pass

    def setup(self) -> None:
        train = torch.load(os.path.join(self._data_path, "train.pt"))
        test = torch.load(os.path.join(self._data_path, "test.pt"))
        self._train_data, self._val_data = self._split_train_val_data(TensorDataset(*train))
        self._test_data = TensorDataset(*test)


def model_fn(model_state_url: Optional[str] = None, num_hidden: int = 32) -> RenateModule:
    if model_state_url is None:
        return DigitsMLP(num_hidden)
    return DigitsMLP.from_state_dict(torch.load(model_state_url))


def data_module_fn(
    data_path: str, val_size: float = 0.2, seed: int = defaults.SEED
) -> RenateDataModule:
    return DigitsDataModule(data_path, val_size=val_size, seed=seed)


def loss_fn() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss(reduction="none")


def train_transform():
    return lambda x: x.float() / 16 + 0.01 * torch.randn(x.shape)


def test_transform():
    return lambda x: x.float() / 16


def metrics_fn():
    return {"my_accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=10)}
"""

OWN_OPTIMIZER = """
from functools import partial
from typing import Optional

import torch
from renate.benchmark.models import MultiLayerPerceptron
from renate.data.data_module import CSVDataModule
from renate.models import RenateModule


def model_fn(model_state_url: Optional[str] = None) -> RenateModule:
    if model_state_url is None:
        return MultiLayerPerceptron(
            num_inputs=64, num_outputs=10, num_hidden_layers=1, hidden_size=[32, 16]
        )
    return MultiLayerPerceptron.from_state_dict(torch.load(str(model_state_url)))


def data_module_fn(data_path: str, chunk_id: int, seed: int):
    return CSVDataModule(
        data_path,
        train_filename=f"train-{chunk_id}.csv",
        target_name="digit",
        val_size=0.2,
        seed=seed,
    )


def loss_fn():
    return torch.nn.CrossEntropyLoss(reduction="none")


def optimizer_fn(learning_rate: float = 0.1, momentum: float = 0.9):
    return partial(torch.optim.SGD, lr=learning_rate, momentum=momentum)


def lr_scheduler_fn():
    return partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.9), "epoch"
"""

SCENARIO = OWN_MODEL.replace(
    "from renate.data.data_module import RenateDataModule",
    "from renate.benchmark.scenarios import ClassIncrementalScenario\n"
    "from renate.data.data_module import RenateDataModule",
).replace(
    """    data_path: str, val_size: float = 0.2, seed: int = defaults.SEED
) -> RenateDataModule:
    return DigitsDataModule(data_path, val_size=val_size, seed=seed)""",
    """    data_path: str, chunk_id: int, val_size: float = 0.2, seed: int = defaults.SEED
):
    return ClassIncrementalScenario(
        data_module=DigitsDataModule(data_path, val_size=val_size, seed=seed),
        groupings=((0, 1), (2, 3, 4)),
        chunk_id=chunk_id,
    )""",
)
"""A config whose data module is one of Renate's scenarios, which counts chunks from 0."""


def with_new_imports(config: str) -> str:
    """Change the import lines of Renate, and nothing else."""
    changed = re.sub(r"(?m)^from renate\b", "from renate_stages.compat.renate", config)
    assert "from renate_stages" in changed
    return changed


def digits(update: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 64) and labels: digits 0 to 4 for update 1, 5 to 9 for update 2."""
    images, labels = load_digits(return_X_y=True)
    rows = (labels < 5) if update == 1 else (labels >= 5)
    return images[rows][:200].astype(np.uint8), labels[rows][:200].astype(np.int64)


def write_tensors(folder: Path, update: int) -> None:
    """Write `train.pt` and `test.pt` as the first project reads them."""
    images, labels = map(torch.from_numpy, digits(update))
    folder.mkdir(parents=True)
    torch.save((images[:150], labels[:150]), folder / "train.pt")
    torch.save((images[150:], labels[150:]), folder / "test.pt")


def write_tables(folder: Path, update: int) -> None:
    """Write `train-N.csv` and `test.csv` as the second project reads them."""
    images, labels = digits(update)
    header = ",".join([*(f"pixel{n}" for n in range(64)), "digit"])
    table = np.column_stack([images, labels])
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"train-{update}.csv": table[:150], "test.csv": table[150:]}
    for name, rows in files.items():
        np.savetxt(folder / name, rows, fmt="%d", delimiter=",", header=header, comments="")
