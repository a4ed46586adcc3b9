"""params.yaml: defaults, and an error message for each mistake."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from small_project import REPOSITORY

from renate_stages import errors
from renate_stages.learners import registry
from renate_stages.params import Params


def problems_of(content) -> list[str]:
    with pytest.raises(errors.InvalidParamsError) as raised:
        Params.parse(content)
    return raised.value.problems


def test_empty_params_are_a_first_update_with_experience_replay():
    params = Params.parse({})
    assert (params.update.number, params.update.parent, params.update.task_id) == (
        1,
        0,
        "default_task",
    )
    assert (params.seed, params.learner, params.hyperparameters) == (0, "ER", {})
    assert (params.trainer.max_epochs, params.trainer.max_steps) == (50, None)
    assert (params.trainer.threads, params.trainer.accelerator) == (1, "cpu")
    assert (params.data.validation_fraction, params.data.test_fraction) == (0.1, 0.2)
    assert (params.evaluation.metric, params.evaluation.mode) == ("accuracy", "max")
    assert params.tracking.enabled and params.example is None


def test_params_yaml_of_this_repository_is_valid():
    params = Params.load(REPOSITORY / "params.yaml")
    assert params.example == "digits" and params.hyperparameters["optimizer"] == "SGD"


def test_params_are_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        Params.parse({}).trainer.threads = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"lerner": "ER"}, "lerner: unknown key, did you mean 'learner'? (known here: data, "),
        ({"LEARNER": "ER"}, "LEARNER: unknown key, did you mean 'learner'?"),
        (
            {"trainer": {"max_epoch": 3}},
            "trainer.max_epoch: unknown key, did you mean 'max_epochs'?",
        ),
        (
            {"update": {"xyz": 3}},
            "update.xyz: unknown key (known here: kind, number, parent, task_id)",
        ),
    ],
)
def test_unknown_key_error_suggests_the_closest_key_of_its_block(content, expected):
    (problem,) = problems_of(content)
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("block", "key", "value", "expected"),
    [
        ("update", "number", "2", "valid integer, found '2'"),
        ("update", "number", True, "valid integer, found True"),
        ("update", "number", 0, "greater than or equal to 1, found 0"),
        ("update", "task_id", 3, "valid string, found 3"),
        ("update", "task_id", "", "at least 1 character"),
        ("trainer", "max_epochs", 2.0, "valid integer, found 2.0"),
        ("trainer", "max_epochs", 0, "greater than or equal to 1"),
        ("trainer", "devices", 0, "greater than or equal to 1, found 0"),
        ("trainer", "devices", "auto", "valid integer, found 'auto'"),
        ("trainer", "num_nodes", 0, "greater than or equal to 1, found 0"),
        ("trainer", "strategy", "horovod", "'auto', 'ddp' or 'ddp_find_unused_parameters_true'"),
        ("trainer", "strategy", "fsdp", "learners need all weights"),
        ("trainer", "strategy", "deepspeed_stage_2", "use ddp"),
        ("trainer", "accumulate_grad_batches", 0, "greater than or equal to 1, found 0"),
        ("trainer", "gradient_clip_algorithm", "max", "'norm' or 'value', found 'max'"),
        ("trainer", "compile", 1, "valid boolean, found 1"),
        ("trainer", "precision", 32, "'32-true', '16-mixed', 'bf16-mixed' or '64-true', found 32"),
        ("trainer", "deterministic", 1, "valid boolean, found 1"),
        ("trainer", "gradient_clip_val", 0, "greater than 0"),
        ("trainer", "gradient_clip_val", False, "valid number, found False"),
        ("data", "test_fraction", "0.2", "valid number, found '0.2'"),
        ("data", "test_fraction", 1, "less than 1, found 1"),
        ("data", "validation_fraction", -0.1, "greater than or equal to 0"),
        ("data", "arguments", [1], "valid dictionary, found [1]"),
        ("evaluation", "mode", "maximum", "'max' or 'min', found 'maximum'"),
        ("tracking", "enabled", "yes", "valid boolean, found 'yes'"),
    ],
)
def test_invalid_value_is_reported_with_its_path(block, key, value, expected):
    (problem,) = problems_of({block: {key: value}})
    assert problem.startswith(f"{block}.{key}: ") and expected in problem


def test_integer_is_accepted_where_a_float_is_expected():
    params = Params.parse({"trainer": {"gradient_clip_val": 1}, "data": {"test_fraction": 0}})
    assert params.trainer.gradient_clip_val == 1 and params.data.test_fraction == 0


def test_empty_block_is_reported():
    (problem,) = problems_of({"trainer": None})
    assert problem.startswith("trainer: ") and "found None" in problem


@pytest.mark.parametrize("parent", [3, 4])
def test_parent_must_be_smaller_than_the_update_number(parent):
    (problem,) = problems_of({"update": {"number": 3, "parent": parent}})
    assert problem == f"update: parent {parent} must be smaller than number 3"


def test_unknown_learner_error_lists_the_known_learners():
    (problem,) = problems_of({"learner": "Finetuning"})
    assert problem == (
        "learner: unknown learner 'Finetuning', did you mean 'FineTuning'? "
        f"(known: {', '.join(registry.names())})"
    )
    (problem,) = problems_of({"learner": 3})
    assert problem == "learner: expected a name or {choice: [...]}, found 3"


def test_hyperparameter_space_is_searched_and_list_is_a_constant():
    params = Params.parse({"hyperparameters": {"rate": {"uniform": [0, 1]}, "sizes": [1, 2]}})
    assert list(params.search_space.domains) == ["rate"]
    assert params.search_space.constants == {"sizes": [1, 2]}
    assert not Params.parse({}).search_space


def test_search_space_problems_are_reported_together_with_all_others():
    problems = problems_of(
        {
            "learner": {"choice": ["ER", "Er"]},
            "hyperparameters": {"rate": {"uniform": [1, 0]}, "size": {"randnit": [1, 2]}},
            "seed": -1,
        }
    )
    assert [each.partition(":")[0] for each in problems] == [
        "seed",
        "learner",
        "hyperparameters.rate",
        "hyperparameters.size",
    ]
    assert "found [1, 0]" in problems[2] and "did you mean 'randint'" in problems[3]


def test_tuning_has_defaults():
    tuning = Params.parse({}).tuning
    assert (tuning.scheduler, tuning.objective, tuning.max_trials) == ("rush", "union", 20)
    assert (tuning.max_epochs_total, tuning.max_time, tuning.n_workers) == (None, None, 1)
    assert tuning.processes == "fork" and tuning.reuse_best and tuning.use_history
    assert Params.parse({}).trainer.keep == "last"


@pytest.mark.parametrize(
    ("time", "seconds"), [("30 min", 1800), ("90", 90), ("1.5 h", 5400), (45, 45), ("2 d", 172800)]
)
def test_max_time_accepts_a_unit_or_seconds(time, seconds):
    assert Params.parse({"tuning": {"max_time": time}}).tuning.max_time == seconds


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        ({"max_time": "30 minutes"}, "tuning.max_time: expected seconds, or a number and one of s"),
        ({"max_time": "0 s"}, "tuning.max_time: input should be greater than 0"),
        ({"max_time": "nan"}, "tuning.max_time: input should be"),
        (
            {"max_trials": None},
            "tuning: max_trials, max_completed, max_epochs_total, max_time are all null",
        ),
        ({"max_trials": 0}, "tuning.max_trials: input should be greater than or equal to 1"),
        ({"objective": "weighted"}, "tuning: objective is weighted and new_weight is None"),
        ({"new_weight": 0.5}, "tuning: objective is union and new_weight is 0.5"),
        ({"objective": "weighted", "new_weight": 1}, "tuning.new_weight: input should be less"),
        ({"n_workers": 0}, "tuning.n_workers: input should be greater than or equal to 1"),
        ({"processes": "threads"}, "tuning.processes: input should be 'fork' or 'fresh'"),
        ({"scheduler": "asa"}, "tuning.scheduler: unknown scheduler 'asa', did you mean 'asha'?"),
        (
            {"scheduler": "asha", "scheduler_arguments": {"grace": 2}},
            "tuning.scheduler_arguments.grace: asha has no such argument",
        ),
        (
            {"metric": "f1"},
            "tuning.mode: expected max or min, because tuning.metric is f1; found none",
        ),
    ],
)
def test_invalid_tuning_block_is_reported(tuning, expected):
    (problem,) = problems_of({"tuning": tuning})
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("content", "objective"),
    [
        ({}, ("accuracy", "max")),
        ({"evaluation": {"metric": "error", "mode": "min"}}, ("error", "min")),
        ({"tuning": {"metric": "loss"}}, ("loss", "min")),
        ({"evaluation": {"metric": "loss"}}, ("loss", "min")),
        ({"tuning": {"metric": "f1", "mode": "max"}}, ("f1", "max")),
    ],
)
def test_tuning_objective_defaults_to_the_headline_metric(content, objective):
    assert Params.parse(content).objective == objective


def test_search_requires_max_epochs():
    content = {
        "trainer": {"max_epochs": None, "max_steps": 10},
        "hyperparameters": {"rate": {"uniform": [0, 1]}},
    }
    (problem,) = problems_of(content)
    assert problem.startswith("trainer.max_epochs: expected a number")
    content["hyperparameters"] = {"max_epochs": {"randint": [1, 9]}}
    assert Params.parse(content).search_space.most_epochs(None) == 9


def test_fixed_params_contain_the_chosen_configuration():
    params = Params.parse(
        {
            "learner": {"choice": ["ER", "LwF"]},
            "hyperparameters": {"batch_size": 8, "max_epochs": {"randint": [1, 9]}},
        }
    )
    fixed = params.fixed({"learner": "LwF", "batch_size": 8, "max_epochs": 3})
    assert (fixed.learner, fixed.hyperparameters) == ("LwF", {"batch_size": 8})
    assert fixed.trainer.max_epochs == 3 and not fixed.search_space
    middle = params.fixed()
    assert (middle.learner, middle.trainer.max_epochs) == ("ER", 5)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected blocks of keys, found None"),
        (b"- 1\n", "expected blocks of keys, found [1]"),
        (b"seed: 0\nseed: 1\n", "duplicate key"),
        (b"seed: [0\n", "cannot be read as YAML"),
        (b"seed: 0  # caf\xe9\n", "not UTF-8"),
        (b"!!python/object:os.system {}\n", "cannot be read as YAML"),
    ],
)
def test_params_file_that_is_not_a_yaml_mapping_is_reported(tmp_path, content, expected):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(errors.RenateStagesError) as raised:
        Params.load(path)
    assert "params.yaml" in str(raised.value) and expected in str(raised.value)


def test_missing_params_file_is_reported(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"params\.yaml is missing"):
        Params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("metric", "wrong", "right"), [("mae", "max", "min"), ("accuracy", "min", "max")]
)
def test_wrong_mode_of_a_known_metric_is_refused_because_it_would_invert_verdicts(
    metric, wrong, right
):
    with pytest.raises(
        errors.InvalidParamsError, match=rf"mode is {wrong}, but .* {metric} .* {right}"
    ):
        Params.parse({"evaluation": {"metric": metric, "mode": wrong}})
    assert Params.parse({"evaluation": {"metric": metric}}).evaluation.mode == right
