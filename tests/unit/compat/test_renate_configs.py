"""Configs of Renate's users run after only their import lines have changed."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest
import torch
from renate_configs import (
    OWN_MODEL,
    OWN_OPTIMIZER,
    SCENARIO,
    with_new_imports,
    write_tables,
    write_tensors,
)
from small_project import REPOSITORY
from syne_tune.config_space import loguniform, uniform

from renate_stages.compat.renate.training import run_training_job
from renate_stages.compat.renate.utils.config_spaces import config_space

pytestmark = pytest.mark.usefixtures("warm_searches")

WRITE = {"own model": write_tensors, "own optimizer": write_tables}
CONFIGS = {"own model": OWN_MODEL, "own optimizer": OWN_OPTIMIZER}


@pytest.mark.parametrize("searches", [False, True], ids=["constants", "search"])
@pytest.mark.parametrize("name", CONFIGS)
def test_config_of_renate_runs_two_updates_with_only_its_imports_changed(
    tmp_path, name, searches, capsys
):
    config = tmp_path / "renate_config.py"
    config.write_text(with_new_imports(CONFIGS[name]))
    results, input_state = [], None
    for update in (1, 2):
        WRITE[name](tmp_path / f"data-{update}", update)
        space = {"memory_size": 60, "batch_size": 32, "batch_memory_frac": 0.5}
        if name == "own model":
            space["num_hidden"] = 24
        if searches:
            space["learning_rate"] = loguniform(1e-3, 1e-1)
            space["alpha"] = uniform(0.1, 1.0)
        results.append(
            run_training_job(
                mode="max",
                config_space=space,
                metric="val_my_accuracy" if name == "own model" else "val_accuracy",
                backend="local",
                updater="ER",
                max_epochs=2,
                chunk_id=update if name == "own optimizer" else None,
                input_state_url=input_state,
                output_state_url=tmp_path / f"state-{update}",
                working_directory=str(tmp_path / "work"),
                config_file=str(config),
                max_num_trials_finished=2 if searches else None,
                seed=update,
                accelerator="cpu",
                data_path=tmp_path / f"data-{update}",
            )
        )
        input_state = tmp_path / f"state-{update}"
    printed = capsys.readouterr().out
    first, second = results
    chosen = second.hyperparameters
    assert chosen["batch_size"] == 16 and chosen["memory_batch_size"] == 16
    assert chosen["memory_update"] == "online" and chosen["loss_normalization"] is True
    if name == "own model":
        assert chosen["optimizer"] == "Adam"
        assert searches or chosen["learning_rate"] == 3e-4
    else:
        assert "optimizer" not in chosen and "Renate's default optimizer" not in printed
    assert searches or chosen["replay_weight"] == 1.0
    assert bool(second.search) == searches
    if searches:
        assert second.search["scheduler"] == "random" and "alpha" not in chosen
        assert 0.1 <= chosen["replay_weight"] <= 1
    assert "Renate's defaults: " in printed
    assert first.data["val"]["rows"] == 30 and first.data["train"]["rows"] == 120
    steps = -(-120 // 16)  # an epoch has as many steps as in Renate
    assert [row["step"] for row in second.curves] == [steps, 2 * steps]
    assert second.state is not None and len(second.state.memory()) == 60
    assert set(torch.load(input_state / "model.ckpt"))  # as its model_fn reads it


def test_search_space_of_renate_can_be_searched(tmp_path):
    config = tmp_path / "renate_config.py"
    config.write_text(with_new_imports(OWN_MODEL))
    write_tensors(tmp_path / "work" / "data", 1)
    done = run_training_job(
        "max",
        config_space("DER"),
        "val_my_accuracy",
        "local",
        "DER",
        1,
        working_directory=tmp_path / "work",
        config_file=config,
        max_num_trials_started=1,
        accelerator="cpu",
    )
    assert done.hyperparameters["optimizer"] == "SGD"
    assert done.hyperparameters["batch_size"] == done.hyperparameters["memory_batch_size"] == 32
    assert {"alpha", "beta"} <= done.hyperparameters.keys()


@pytest.mark.parametrize(
    ("updater", "space"),
    [
        ("POD-ER", {"alpha": 0.5, "normalize": 0}),
        ("CLS-ER", {"alpha": 0.5, "beta": 0.2, "stable_model_update_weight": 0.99,
                    "plastic_model_update_weight": 0.9}),
        ("Super-ER", {"der_alpha": 0.5, "der_beta": 0.5, "cls_alpha": 0.1, "pod_alpha": 0.1}),
        ("Offline-ER", {"loss_weight_new_data": 0.5}),
        ("GDumb", {}),
        ("RD", {}),
        ("Joint", {}),
        ("FineTuning", {"early_stopping": True}),
    ],
)  # fmt: skip
def test_updaters_of_renate_run_with_their_own_hyperparameters(tmp_path, updater, space):
    config = tmp_path / "renate_config.py"
    config.write_text(with_new_imports(OWN_OPTIMIZER))
    state = None
    for update in (1, 2):
        write_tables(tmp_path / f"data-{update}", update)
        done = run_training_job(
            "min",
            space,
            "val_loss",
            "local",
            updater,
            1,
            chunk_id=update,
            input_state_url=state,
            output_state_url=tmp_path / f"state-{update}",
            working_directory=tmp_path / "work",
            config_file=config,
            data_path=tmp_path / f"data-{update}",
        )
        state = tmp_path / f"state-{update}"
    assert done.metrics["update"] == 2 if "update" in done.metrics else done.metrics


def test_own_loop_of_the_migration_guide_runs(tmp_path, monkeypatch):
    guide = (REPOSITORY / "docs" / "migration.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("loop.py").write_text(code)
    assert set(runpy.run_path("loop.py")["updated"].metrics) == {1, 2}


def test_every_module_of_the_migration_guide_has_the_names_listed_for_it():
    guide = (REPOSITORY / "docs" / "migration.md").read_text(encoding="utf-8")
    table = guide[guide.index("| module of `renate_stages.compat.renate`") :].split("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:]]
    assert len(rows) == 14
    for modules, names in rows:
        module = import_module(
            f"renate_stages.compat.renate.{re.findall(r'`([^`]+)`', modules)[0]}"
        )
        for name in re.findall(r"`([A-Za-z_0-9]+)`", names):
            not_names = ("src_bucket", "src_object_name", "save_to_disk")
            assert hasattr(module, name) or name in not_names, (module.__name__, name)


def test_config_with_a_scenario_gets_the_classes_of_its_chunk(tmp_path):
    config = tmp_path / "renate_config.py"
    config.write_text(with_new_imports(SCENARIO))
    write_tensors(tmp_path / "data", 1)
    classes = []
    for chunk_id in (0, 1):
        done = run_training_job(
            mode="max",
            config_space={"memory_size": 60},
            metric="val_my_accuracy",
            backend="local",
            config_file=str(config),
            chunk_id=chunk_id,
            max_epochs=1,
            data_path=tmp_path / "data",
            input_state_url=tmp_path / "state-0" if chunk_id else None,
            output_state_url=tmp_path / f"state-{chunk_id}",
            working_directory=tmp_path / "work",
        )
        classes.append(set(done.data["train"]["classes"]))
    assert classes == [{"0", "1"}, {"2", "3", "4"}]
    assert set(done.metrics["my_accuracy"]["holdout"]) == {"1", "2"}
