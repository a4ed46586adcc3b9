"""What params.yaml may say: defaults, and a message for each mistake."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from small_project import REPOSITORY

from renate_stages import errors
from renate_stages.learners import registry
from renate_stages.params import SEARCH_SPACES, Params


def problems_of(content) -> list[str]:
    with pytest.raises(errors.InvalidParamsError) as raised:
        Params.parse(content)
    return raised.value.problems


def test_an_empty_mapping_is_a_first_update_by_experience_replay():
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


def test_the_projects_own_parameters_are_valid():
    params = Params.load(REPOSITORY / "params.yaml")
    assert params.example == "digits" and params.hyperparameters["optimizer"] == "SGD"


def test_parameters_cannot_be_changed_afterwards():
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
def test_an_unknown_key_names_the_closest_of_its_block(content, expected):
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
        ("trainer", "devices", 2, "less than or equal to 1, found 2"),
        ("trainer", "precision", 32, "'32-true', '16-mixed' or 'bf16-mixed', found 32"),
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
def test_a_wrong_value_is_told_with_its_path(block, key, value, expected):
    (problem,) = problems_of({block: {key: value}})
    assert problem.startswith(f"{block}.{key}: ") and expected in problem


def test_a_whole_number_is_a_number():
    params = Params.parse({"trainer": {"gradient_clip_val": 1}, "data": {"test_fraction": 0}})
    assert params.trainer.gradient_clip_val == 1 and params.data.test_fraction == 0


def test_a_block_without_its_keys_is_told():
    (problem,) = problems_of({"trainer": None})
    assert problem.startswith("trainer: ") and "found None" in problem


@pytest.mark.parametrize("parent", [3, 4])
def test_the_parent_is_an_earlier_update(parent):
    (problem,) = problems_of({"update": {"number": 3, "parent": parent}})
    assert problem == f"update: parent {parent} must be smaller than number 3"


def test_an_unknown_learner_names_the_known_ones():
    (problem,) = problems_of({"learner": "Finetuning"})
    assert problem == (
        "learner: unknown learner 'Finetuning', did you mean 'FineTuning'? "
        f"(known: {', '.join(registry.names())})"
    )
    (problem,) = problems_of({"learner": 3})
    assert problem == "learner: input should be a valid string, found 3"


@pytest.mark.parametrize("space", SEARCH_SPACES)
def test_a_search_space_is_refused_with_what_to_do_instead(space):
    (problem,) = problems_of({"hyperparameters": {"rate": {space: [1, 2]}, "sizes": [1, 2]}})
    assert problem.startswith(f"hyperparameters.rate: {{'{space}': [1, 2]}} is a search space")
    assert "dvc exp run -S hyperparameters.rate=VALUE" in problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected blocks of keys, found None"),
        (b"- 1\n", "expected blocks of keys, found [1]"),
        (b"seed: 0\nseed: 1\n", "duplicate key"),
        (b"seed: [0\n", "not readable as YAML"),
        (b"seed: 0  # caf\xe9\n", "not UTF-8"),
        (b"!!python/object:os.system {}\n", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_told(tmp_path, content, expected):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(errors.RenateStagesError) as raised:
        Params.load(path)
    assert "params.yaml" in str(raised.value) and expected in str(raised.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"params\.yaml is missing"):
        Params.load(tmp_path / "params.yaml")
