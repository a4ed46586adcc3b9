"""Errors of `run_training_job` name its arguments, and come before any data is read."""

from __future__ import annotations

import pytest

from renate_stages import errors, run_training_job
from renate_stages.api.arguments import translated

CONFIG = """
import torch


def data_module_fn(data_path):
    raise AssertionError("data was read")


def model_fn():
    return torch.nn.Linear(2, 2)
"""


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (
            {"config_space": {"learning_rat": 0.1}},
            errors.UnknownHyperparameterError,
            "run_training_job, config_space: these are set, but nothing uses them",
        ),
        ({"max_epochs": 0}, errors.InvalidParamsError, "max_epochs"),
        ({"updater": "ERR"}, errors.RenateStagesError, "updater"),
        ({"task": "classify"}, errors.RenateStagesError, "task: "),
        ({"mode": "best"}, errors.InvalidParamsError, "mode"),
        ({"precision": "8"}, errors.InvalidParamsError, "precision"),
    ],
)
def test_error_names_the_argument_before_data_is_read(tmp_path, arguments, error, expected):
    (tmp_path / "renate_config.py").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("1")
    given = {"config_space": {"learning_rate": 0.1}, **arguments}
    with pytest.raises(error) as raised:
        run_training_job(
            **given,
            config_file=tmp_path / "renate_config.py",
            data_path=tmp_path / "data",
            working_directory=tmp_path / "work",
        )
    message = str(raised.value)
    assert expected in message
    for key in ("params.yaml", "trainer.", "hyperparameters.", "evaluation."):
        assert key not in message


def test_missing_config_file_names_its_argument(tmp_path):
    with pytest.raises(errors.MissingFileError, match="To fix this: correct config_file"):
        run_training_job({}, config_file=tmp_path / "nope.py", data_path=tmp_path)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "params.yaml, hyperparameters.alpha: expected a number",
            "run_training_job, config_space.alpha: expected a number",
        ),
        ("set trainer.max_epochs in params.yaml.", "set max_epochs in the arguments of "),
        ("params.yaml, learner: ER runs", "run_training_job, updater: ER runs"),
        (
            "params.yaml has 1 problem: trainer.patience: finding",
            "the arguments of run_training_job have 1 problem: trainer.patience",
        ),
        ("set data.arguments.chunk_id in params.yaml", "set chunk_id in the arguments of run_"),
        ("/work/params.yaml is missing", "/work/params.yaml is missing"),
        ("set data.validation_fraction above 0", "set data.validation_fraction above 0"),
        ("chosen hyperparameters. Then", "chosen hyperparameters. Then"),
    ],
)
def test_keys_are_translated(message, expected):
    assert expected in translated(message)
