"""`simulate.yaml` is checked before anything runs, and gives one run for each row and seed."""

import pytest
import yaml

from renate_stages.errors import InvalidParamsError, MissingFileError
from renate_stages.params.scenario import ScenarioParams
from renate_stages.simulation.settings import read_plan
from renate_stages.simulation.side_by_side import default_processes

PLAIN = {
    "params": None,
    "scenario": {"name": "iid", "num_tasks": 3},
    "learners": ["ER"],
    "seeds": [0, 4],
}


def plan_of(tmp_path, **changes):
    path = tmp_path / "simulate.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return read_plan(path)


def test_every_learner_runs_with_every_combination_and_seed(tmp_path):
    plan = plan_of(
        tmp_path,
        learners=["ER", {"name": "small", "learner": "DER", "hyperparameters": {"alpha": 0.2}}],
        hyperparameters={"learning_rate": 0.1},
        grid={"memory_size": [10, 20]},
    )
    assert [run.title for run in plan.runs] == [
        f"{label} memory_size={size}, seed {seed}"
        for label in ("ER", "small")
        for size in (10, 20)
        for seed in (0, 4)
    ]
    assert plan.updates == 3
    assert plan.runs[0].hyperparameters == {"learning_rate": 0.1, "memory_size": 10}
    assert plan.runs[-1].hyperparameters["alpha"] == 0.2
    assert plan.runs[-1].learner == "DER"


def test_settings_of_params_hold_unless_the_file_changes_them(tmp_path):
    params = {
        "hyperparameters": {"learning_rate": 0.5, "batch_size": 8},
        "trainer": {"max_epochs": 7, "threads": 2},
        "evaluation": {"metric": "loss", "mode": "min"},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    plan = plan_of(
        tmp_path,
        params="params.yaml",
        hyperparameters={"batch_size": 4},
        trainer={"max_epochs": 2},
    )
    assert plan.runs[0].hyperparameters == {"learning_rate": 0.5, "batch_size": 4}
    assert plan.blocks["trainer"] == {"max_epochs": 2, "threads": 2}
    assert (plan.metric, plan.lower_is_better) == ("loss", True)
    assert plan.blocks["data"]["scenario"] == {"name": "iid", "num_tasks": 3}


def test_retention_of_a_row_changes_the_block_for_its_runs_alone(tmp_path):
    window = {"name": "window", "learner": "ER", "retention": {"memory_updates": 1}}
    plan = plan_of(tmp_path, learners=["ER", window], retention={"holdout_updates": 2})
    found = [plan.blocks_of(run)["retention"] for run in plan.runs]
    whole, own = {"holdout_updates": 2}, {"holdout_updates": 2, "memory_updates": 1}
    assert found == [whole, whole, own, own]
    assert plan.blocks["retention"] == whole


def test_without_a_scenario_the_data_module_gets_the_number_of_the_part(tmp_path):
    plan = plan_of(tmp_path, scenario=None, updates=4)
    assert plan.passes_chunk_id and plan.updates == 4
    assert not plan_of(tmp_path).passes_chunk_id


@pytest.mark.parametrize(
    ("arguments", "updates"),
    [
        ({"num_tasks": 4}, 4),
        ({"groupings": [[0], [1]]}, 2),
        ({"degrees": [0, 45, 90]}, 3),
        ({"data_ids": [2019, 2020]}, 2),
        ({"edges": [1, 2]}, 3),
        ({"domains": ["a", "b"]}, 4),
        ({"domains": ["a", "b"], "rounds": 3}, 6),
        ({}, None),
    ],
)
def test_number_of_updates_follows_from_the_scenario(arguments, updates):
    assert ScenarioParams.model_validate({"name": "iid", **arguments}).updates == updates


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"learner": ["ER"]}, "learner: unknown key, did you mean 'learners'"),
        ({"learners": []}, "learners: list should have at least 1 item"),
        ({"learners": ["FR"]}, "unknown learner 'FR'"),
        ({"learners": ["ER", "FR"]}, "unknown learner 'FR'"),
        (
            {"learners": [{"learner": "ER", "retention": {"memory_update": 1}}]},
            "retention.memory_update: unknown key, did you mean 'memory_updates'",
        ),
        ({"learners": ["ER", "ER"]}, "two have the name of ER-seed-0"),
        (
            {"learners": [{"lerner": "ER"}]},
            "learners.0.lerner: unknown key, did you mean 'learner'",
        ),
        ({"learners": [{"learner": {"choice": ["ER", "DER"]}}]}, "set `name`"),
        ({"seeds": [1, 1]}, "a seed is listed more than once"),
        ({"scenario": {"name": "idd"}}, "scenario.name: input should be"),
        (
            {"scenario": {"name": "iid", "num_tasks": 2, "chunk_id": 0}},
            "scenario.chunk_id: remove it",
        ),
        ({"scenario": None}, "updates: missing"),
        ({"trainer": {"max_epoch": 3}}, "trainer.max_epoch: unknown key, did you mean"),
        ({"hyperparameters": {"learning_rate": {"uniform": [1, 0]}}}, "learning_rate"),
    ],
)
def test_problems_are_errors_with_the_name_of_the_key(tmp_path, changes, problem):
    with pytest.raises(InvalidParamsError) as caught:
        plan_of(tmp_path, **changes)
    assert problem in str(caught.value) and "simulate.yaml" in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"simulate\.yaml is missing"):
        read_plan(tmp_path / "simulate.yaml")
    with pytest.raises(MissingFileError, match=r"other\.yaml is missing"):
        plan_of(tmp_path, params="other.yaml")


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [({}, 6), ({"threads": 2}, 3), ({"threads": 8}, 1), ({"accelerator": "gpu"}, 1)],
)
def test_number_of_processes_fits_the_machine(tmp_path, monkeypatch, trainer, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert default_processes(plan_of(tmp_path, trainer=trainer)) == expected
