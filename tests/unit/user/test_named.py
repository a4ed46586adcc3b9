"""A data module and a model that params.yaml names replace functions of renate_config.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from renate_stages import errors
from renate_stages.data.modules.table import Table
from renate_stages.preprocessing.table import TablePreprocessing
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig
from renate_stages.user.named import Named

CODE = Path("renate_config.py")


def user(named: Named, **functions) -> UserConfig:
    return UserConfig(CODE, functions, named=named)


def test_settings_of_a_data_module_are_its_arguments(tmp_path):
    pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]}).to_csv(tmp_path / "a.csv", index=False)
    module = user(Named(module="table", arguments={"target": "y"})).data_module(tmp_path, {}, 0)
    assert len(module.train_data()) == 2


def test_a_task_decides_how_a_named_module_reads_targets(tmp_path):
    pd.DataFrame({"x": [1.0, 2.0], "y": [1, 0]}).to_csv(tmp_path / "a.csv", index=False)
    named = Named(module="table", arguments={"target": "y"}, task="regression")
    assert float(user(named).data_module(tmp_path, {}, 0).train_data()[0][1]) == 1.0


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        (Named(module="tabel"), "unknown data module 'tabel'.*did you mean 'table'"),
        (Named(model="TabularMPL"), "TabularMPL.*did you mean 'TabularMLP'"),
        (Named(module="table", arguments={"taget": "y"}), "no setting 'taget'.*'target'"),
        (Named(module="table", arguments={"seed": 1}), "no setting 'seed'"),
    ],
)
def test_unknown_names_are_refused_with_the_closest_one(named, problem):
    with pytest.raises(errors.RenateStagesError, match=f"(?s){problem}"):
        user(named)


def test_a_function_and_a_name_for_the_same_thing_are_refused():
    with pytest.raises(
        errors.UserConfigError, match=r"defines model_fn, but params.yaml sets model"
    ):
        user(Named(model="MLP"), model_fn=lambda: torch.nn.Linear(1, 1))
    own = user(Named(model="MLP", optional=True), model_fn=lambda: "own")
    assert own.call("model_fn", {}) == "own"


def test_errors_of_a_named_module_or_model_name_the_setting_and_no_function(tmp_path, monkeypatch):
    monkeypatch.setattr(Table, "setup", lambda self: 1 / 0)
    made = user(Named("MLP", "table", {"target": "y"}))
    with pytest.raises(errors.UserConfigError) as raised:
        made.data_module(tmp_path, {}, 0)
    assert str(raised.value).startswith("params.yaml: data.module: table failed: ZeroDivisionError")
    monkeypatch.setattr("renate_stages.models.registry.build", lambda *_: 1 / 0)
    with pytest.raises(errors.UserConfigError) as raised:
        made.call("model_fn", {"num_inputs": 3, "num_outputs": 2})
    assert str(raised.value).startswith("params.yaml: model: MLP failed: ")
    with pytest.raises(errors.UserConfigError) as raised:
        user(Named(module="table")).data_module(tmp_path, {}, 0)
    assert "params.yaml: data.module: table needs 'target'" in str(raised.value)
    assert "set data.module.target in params.yaml." in str(raised.value)
    assert "renate_config" not in str(raised.value)


def test_arguments_of_a_named_model_are_hyperparameters_and_those_of_a_module_are_not():
    named = Named("TabularMLP", "table", {"target": "y"})
    known = optimization.shared_hyperparameters(user(named))
    assert {"hidden_size", "dropout", "learning_rate"} <= known
    assert not {"target", "exclude"} & known


def test_a_named_model_is_built_with_the_sizes_of_the_first_update_and_keeps_its_arguments(
    tmp_path,
):
    built = user(Named("TabularMLP"))
    built.preprocessing = TablePreprocessing({"x": "numeric", "c": "categorical"})
    built.preprocessing.built = {
        "num_numeric": 1,
        "cardinalities": [4],
        "num_outputs": 1,
        "means": [200.0],
        "scales": [50.0],
    }
    model = built.call("model_fn", {"hidden_size": 8}, model_state_url=None)
    row = {
        "numeric": torch.zeros(1, 1),
        "missing": torch.zeros(1, 1),
        "categorical": torch.ones(1, 1).long(),
    }
    assert abs(model(row).item() - 200) < 150  # outputs begin near the mean of the targets
    torch.save(model.state_dict(), tmp_path / "model.ckpt")
    built.preprocessing.built["cardinalities"] = [9]  # a stored model keeps its own sizes
    url = str(tmp_path / "model.ckpt")
    again = built.call("model_fn", {"hidden_size": 8}, model_state_url=url)
    assert torch.equal(again(row), model(row))
    with pytest.raises(errors.RenateStagesError, match="hidden_size was 8 and is 16"):
        built.call("model_fn", {"hidden_size": 16}, model_state_url=url)
