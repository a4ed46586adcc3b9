"""A small project with a table: three updates, of which later ones have a new category and new words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from small_project import REPOSITORY, edit_params, move_on, quiet

from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import state

TESTS = "test-*.csv"
CITIES = ("Oslo", "Rome", "Bonn")
WORDS = ("größer", "🙂", "late,", "parcel", 'the "red" one', "two\nlines")


def customers(number: int, rows: int) -> pd.DataFrame:
    """Return rows of an update, some of them with missing values; Bonn and its words are new in update 2."""
    rng = np.random.default_rng([number, rows])
    city = rng.choice(CITIES[: 2 if number == 1 else 3], rows)
    age = rng.normal(40, 12, rows).round(1)
    likes = age + 20 * (city == "Rome") - 25 * (city == "Bonn")
    frame = pd.DataFrame(
        {
            "customer": [f"{number}-{rows}-{row}" for row in range(rows)],
            "age": age,
            "city": city,
            "member": rng.random(rows) < 0.5,
            "since": pd.Timestamp("2026-01-05") + pd.to_timedelta(rng.integers(0, 90, rows), "D"),
            "label": np.select([likes < 35, likes < 55], ["boat", "car"], "train"),
        }
    )
    frame["since"] = frame["since"].dt.strftime("%Y-%m-%d")
    words = np.random.default_rng([number, rows, 1]).choice(WORDS, (rows, 6))
    frame["note"] = [
        " ".join([*own[:at], of])
        for own, at, of in zip(words, age.astype(int) % 7, city, strict=True)
    ]
    for column in ("age", "city", "member", "note"):
        frame[column] = frame[column].astype(object).where(rng.random(rows) > 0.1, None)
    return frame


def write_customers(folder: Path, number: int) -> None:
    """Write an update's rows for training and testing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    customers(number, 120).to_csv(folder / f"week-{number}.csv", index=False)
    customers(number, 40).to_csv(folder / f"test-{number}.csv", index=False)


def table_project(project: Project) -> None:
    """Write a new project whose model and data module are named in `params.yaml`."""
    project.root.mkdir(exist_ok=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, project.root / name)
    project.user_config.write_text('"""The model and the data are in params.yaml."""\n')
    project.parent.mkdir()
    state.write_empty(project.parent)
    write_customers(project.incoming, 1)
    module = {"name": "table", "target": "label", "id": "customer", "test_files": TESTS}
    module["text"] = ["note"]
    edit_params(
        project,
        model="TabularMLP",
        data__module=module,
        hyperparameters={"optimizer": "Adam", "learning_rate": 0.02, "memory_size": 60},
        trainer__max_epochs=3,
        shift__permutations=20,
        tracking__enabled=False,
    )


def update(project: Project) -> None:
    """Run all stages of an update."""
    for stage in (prepare, restore_state, tune, train, export):
        stage.run(project, quiet)


def three_updates(project: Project) -> None:
    """Run three updates; the second one is compared with the first one's model, the champion."""
    table_project(project)
    update(project)
    for number in (2, 3):
        shutil.rmtree(project.champion, ignore_errors=True)
        shutil.copytree(project.export, project.champion)
        move_on(project)
        write_customers(project.incoming, number)
        update(project)
