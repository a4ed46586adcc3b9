"""A generated project compares learners with its own settings, and logs them to MLflow."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from sandbox import generate


def test_generated_project_simulates_updates(tmp_path):
    project = generate(tmp_path)
    printed = project.run("renate-stages", "example-data", "all")
    assert "next: `renate-stages simulate`" in printed
    project.edit(
        "simulate.yaml",
        ("[FineTuning, ER, DER++, LwF, Joint]", "[FineTuning, ER]"),
        ("seeds: [0, 1, 2]", "seeds: [3]\nupdates: 2\ntrainer: {max_epochs: 2}"),
        ("experiment: null", "experiment: comparison"),
    )
    printed = project.run("renate-stages", "simulate")
    assert "2 of 2 runs left" in printed and "| ER | 1 |" in printed
    assert "ER, seed 3: update 2 of 2, accuracy" in printed
    report = project.read("simulation/report.md")
    assert "![curves](pictures/curves.png)" in report
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        names = {name for (name,) in database.execute("SELECT name FROM runs")}
        steps = database.execute("SELECT step FROM metrics WHERE key = 'forgetting'").fetchall()
    assert names == {"simulation", "FineTuning, seed 3", "ER, seed 3"}
    assert sorted(steps) == [(1,), (1,), (2,), (2,)]

    assert "0 of 2 runs left" in project.run("renate-stages", "simulate")
    project.edit("renate_config.py", ("hidden_size: int = 128", "hidden_size: int = 64"))
    refused = project.run("renate-stages", "simulate", code=2)
    assert "differs in code" in refused and "Traceback" not in refused
    refused = project.run("renate-stages", "example-data", "4", code=2)
    assert "expected a number from 1 to 3" in refused
