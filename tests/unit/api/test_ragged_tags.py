"""Tags of texts of different lengths: padding counts neither in the loss nor in a metric."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from renate_stages import errors, load_model, run_training_job

CONFIG = """
import json

import torch
from renate_stages.data import RenateDataModule
from torch import nn


class Texts(RenateDataModule):
    ragged_fields = ("inputs", "targets")

    def setup(self):
        found = json.loads((self._data_path / "texts.json").read_text())
        self._train_data, self._test_data = ([(t, tags) for t, tags in part] for part in found)


def data_module_fn(data_path: str, seed: int = 0):
    return Texts(data_path, seed=seed)


def model_fn():
    return nn.Sequential(nn.Embedding(12, 6), nn.Linear(6, 3))
"""


def texts(seed: int, longest: int, change=lambda tag: tag) -> list:
    """Return token ids 1 to 11 and their tags; the tag of a token is its rest modulo 3."""
    generator = np.random.default_rng(seed)
    parts = []
    for rows in (60, 30):
        tokens = [generator.integers(1, 12, n) for n in generator.integers(1, longest, rows)]
        parts.append([[each.tolist(), [change(t % 3) for t in each.tolist()]] for each in tokens])
    return parts


def job(folder: Path, datas: list, learner: str = "ER", **values):
    folder.mkdir(exist_ok=True)
    (folder / "renate_config.py").write_text(CONFIG)
    result = None
    for number, data in enumerate(datas, 1):
        (folder / f"data-{number}").mkdir()
        (folder / f"data-{number}" / "texts.json").write_text(json.dumps(data))
        result = run_training_job(
            {"learning_rate": 0.3, "memory_size": 50, "memory_batch_size": 16, **values},
            metric="accuracy",
            updater=learner,
            task="tokens",
            max_epochs=3,
            config_file=folder / "renate_config.py",
            data_path=folder / f"data-{number}",
            input_state_url=folder / f"state-{number - 1}" if number > 1 else None,
            output_state_url=folder / f"state-{number}",
            working_directory=folder / "work",
        )
    return result


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_accuracy_counts_only_the_tags_that_exist(tmp_path, forward):
    datas = [texts(1, 9), texts(2, 14)]  # the second update has longer texts
    result = job(tmp_path / "job", datas, replay_forward=forward)
    assert result is not None
    model = load_model(tmp_path / "job" / "state-2", tmp_path / "job" / "renate_config.py")
    true, predicted = [], []
    with torch.no_grad():
        for data in datas:
            for tokens, tags in data[1]:
                true += tags
                predicted += model(torch.tensor([tokens]))[0].argmax(1).tolist()
    expected = accuracy_score(true, predicted)
    assert result.metrics["accuracy"]["overall"] == pytest.approx(expected)
    assert 0.3 < expected < 1


def test_named_tags_of_different_lengths_grow_the_model(tmp_path):
    first = texts(1, 9, lambda tag: "even" if tag == 0 else "odd")
    second = texts(2, 14, lambda tag: ("even", "odd", "third")[tag])
    result = job(tmp_path / "job", [first, second])
    assert result is not None and result.state is not None
    assert set(result.state.provenance.labels) == {"even", "odd", "third"}


def test_values_of_different_lengths_are_refused_for_a_regression(tmp_path):
    data = texts(1, 9, float)
    code = CONFIG.replace("nn.Linear(6, 3))", "nn.Linear(6, 1), nn.Flatten(1))")
    folder = tmp_path / "job"
    (folder / "data").mkdir(parents=True)
    (folder / "renate_config.py").write_text(code)
    (folder / "data" / "texts.json").write_text(json.dumps(data))
    with pytest.raises(errors.TargetsError, match="rows of different lengths"):
        run_training_job(
            {"learning_rate": 0.1},
            metric="loss",
            mode="min",
            task="regression",
            max_epochs=1,
            config_file=folder / "renate_config.py",
            data_path=folder / "data",
            working_directory=folder / "work",
        )


def test_learner_that_stores_outputs_needs_targets_of_one_length(tmp_path):
    with pytest.raises(errors.RaggedOutputsError, match="pad targets to one length with -100"):
        job(tmp_path / "job", [texts(1, 9)], "DER++")


@pytest.mark.parametrize("learner", ["LwF", "EWC", "MAS", "Joint"])
def test_other_learners_take_tags_of_different_lengths(tmp_path, learner):
    values = {"ewc_weight": 1.0, "mas_weight": 0.001} if learner in ("EWC", "MAS") else {}
    result = job(tmp_path / "job", [texts(1, 9), texts(2, 14)], learner, **values)
    assert result is not None and result.metrics["accuracy"]["overall"] > 0.4
