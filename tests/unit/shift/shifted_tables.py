"""Shared helpers of shift tests on tables: a project whose data module reads columns of both kinds."""

from __future__ import annotations

import shutil

import numpy as np
from small_project import edit_params

from renate_stages.files import yaml_file
from renate_stages.memory.spec import IGNORED
from renate_stages.project import Project
from renate_stages.stages import prepare, restore_state, train, tune

CONFIG = """
import numpy as np
import torch
from renate_stages.data import Batched, ColumnDataset, RenateDataModule
from renate_stages.models import RenateModule


class Rents(RenateDataModule):
    feature_names = ("day", "area", "rooms", "city")
    categorical_features = ("city",)
    excluded_features = ("day",)

    def setup(self):
        rows = np.load(self._data_path / "inputs.npy")
        inputs = {
            "numeric": rows[:, :3].astype(np.float32), "categorical": rows[:, 3:].astype(np.int64)
        }
        self._train_data = ColumnDataset(inputs, np.load(self._data_path / "targets.npy"))


class Small(RenateModule):
    def __init__(self):
        super().__init__(constructor_arguments={})
        self.hidden = torch.nn.Linear(6, 8)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x, task_id=None):
        return self.last(torch.tanh(self.hidden(x)))


def data_module_fn(data_path, seed=0):
    return Rents(data_path, seed=seed)


def model_fn(model_state_url=None):
    return Small() if model_state_url is None else Small.from_state_dict(torch.load(model_state_url))


def encoded(inputs):
    numbers = (inputs["numeric"][:, 1:] - torch.tensor([500.0, 2.5])) / torch.tensor([100.0, 1.0])
    city = torch.nn.functional.one_hot(inputs["categorical"][:, 0].clamp(0, 3), 4)
    return torch.cat([torch.nan_to_num(numbers), city.float()], dim=1)


def train_transform():
    return Batched(encoded)


def test_transform():
    return Batched(encoded)
"""


def quiet(message: str) -> None:
    assert message


def table(rows: int, seed: int, first_day: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return columns day, area, rooms and city, `(rows, 4)`, and whether the rent is high."""
    generator = np.random.default_rng(seed)
    day = first_day + np.sort(generator.integers(30, size=rows))
    area, rooms = generator.normal(500, 100, rows), generator.integers(1, 5, size=rows)
    city = generator.choice(4, size=rows, p=[0.4, 0.3, 0.2, 0.1])
    columns = np.stack([day, area, rooms.astype(float), city], axis=1)
    columns[generator.random(rows) < 0.05, 2] = np.nan
    logit = (area - 500) / 40 + (city == 0) - 0.4
    return columns, (generator.random(rows) < 1 / (1 + np.exp(-2 * logit))).astype(np.int64)


def put_table(project: Project, columns: np.ndarray, targets: np.ndarray | None = None) -> None:
    """Write the incoming data; without targets, no row has a label."""
    shutil.rmtree(project.incoming, ignore_errors=True)
    project.incoming.mkdir(parents=True)
    np.save(project.incoming / "inputs.npy", columns)
    targets = np.full(len(columns), IGNORED) if targets is None else targets
    np.save(project.incoming / "targets.npy", targets)


def first_update_on_table(project: Project) -> None:
    """Run update 1 on the days 0 to 29, and open update 2."""
    project.user_config.write_text(CONFIG)
    put_table(project, *table(1500, 0))
    yaml_file.edit(project.params, lambda content: content["hyperparameters"].pop("hidden_size"))
    edit_params(project, hyperparameters__learning_rate=0.3)
    run_and_move_on(project)


def put_csv(project: Project, columns: np.ndarray, targets: np.ndarray) -> None:
    """Write the incoming data as a CSV file with dates and names of cities."""
    shutil.rmtree(project.incoming, ignore_errors=True)
    project.incoming.mkdir(parents=True)
    lines = ["day,area,rooms,city,high"]
    for (day, area, rooms, city), high in zip(columns.tolist(), targets.tolist(), strict=True):
        date = np.datetime64("2026-01-01") + np.timedelta64(int(day), "D")
        shown = "" if np.isnan(rooms) else f"{rooms:.0f}"
        lines.append(f"{date},{area:.1f},{shown},{'ABCDEFGH'[int(city)]},{high}")
    (project.incoming / "rents.csv").write_text("\n".join(lines) + "\n")


def first_update_on_csv(project: Project) -> None:
    """Run update 1 with the data module `table` and the model `TabularMLP`; open update 2."""
    project.user_config.write_text("")
    put_csv(project, *table(600, 0))
    edit_params(project, data__module={"name": "table", "target": "high"}, model="TabularMLP")
    run_and_move_on(project)


def run_and_move_on(project: Project) -> None:
    """Run the stages of update 1, and open update 2."""
    edit_params(
        project, trainer__max_epochs=8, hyperparameters__batch_size=64, shift__permutations=500
    )
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)
    shutil.rmtree(project.parent)
    project.state.rename(project.parent)
    edit_params(project, update__number=2, update__parent=1)
