"""`run_training_job` with a data module of ours, returned by `data_module_fn`."""

from __future__ import annotations

import sys

import pytest
from small_tables import TESTS, customers, write_customers

from renate_stages import run_training_job
from renate_stages.export import load

CONFIG = f"""
import torch
from renate_stages.data.modules.table import Table
from renate_stages.models import TabularMLP


def data_module_fn(data_path: str, seed: int = 0):
    return Table(data_path, target="label", id="customer", test_files="{TESTS}", text=["note"], seed=seed)


def model_fn(model_state_url: str | None = None):
    if model_state_url is None:
        return TabularMLP(num_numeric=7, cardinalities=[4], vocab_sizes=[2], num_outputs=3)
    return TabularMLP.from_state_dict(torch.load(model_state_url, weights_only=True))
"""


def test_jobs_grow_the_preprocessing_of_their_input_state(tmp_path, monkeypatch, warm_jobs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "renate_config.py").write_text(CONFIG)
    for number in (1, 2):
        write_customers(tmp_path / "data", number)
        result = run_training_job(
            {"optimizer": "Adam", "learning_rate": 0.02, "memory_size": 60},
            max_epochs=2,
            config_file="renate_config.py",
            data_path="data",
            input_state_url="states/1" if number == 2 else None,
            output_state_url=f"states/{number}",
            export_path=f"exported-{number}",
        )
    served = load("exported-2")
    assert served.preprocessing.sizes()["cardinalities"] == [5]
    words = served.preprocessing.texts.columns[0].words
    assert words[-1] == "bonn" and served.preprocessing.sizes()["vocab_sizes"] == [len(words) + 2]
    for number in (1, 2):
        rows = customers(number, 40)
        right = (served.predict(rows)["prediction"] == rows["label"]).mean()
        assert right == pytest.approx(result.metrics["accuracy"]["holdout"][str(number)], abs=1e-9)
