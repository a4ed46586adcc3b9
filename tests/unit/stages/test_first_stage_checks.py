"""`prepare` refuses wrong hyperparameters before it reads data."""

from __future__ import annotations

import pytest
from small_project import edit_config, edit_params

from renate_stages import errors
from renate_stages.learners import registry
from renate_stages.learners.base import hyperparameters_of
from renate_stages.learners.hyperparameters import HYPERPARAMETERS
from renate_stages.stages import hyperparameters, prepare


def quiet(line: str) -> None:
    pass


@pytest.fixture
def unreadable(project):
    """A project whose data must not be read."""
    edit_config(project, "TensorDataset(images, labels)", "1 / 0")
    return project


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("learing_rate", 0.1, errors.UnknownHyperparameterError, "did you mean 'learning_rate'"),
        ("learning_rate", -0.1, errors.InvalidHyperparameterError, "a number > 0"),
        ("optimizer", "SDG", errors.InvalidHyperparameterError, "one of "),
    ],
)
def test_wrong_names_and_values_of_the_optimizer_are_refused(
    unreadable, name, value, error, message
):
    edit_params(unreadable, **{f"hyperparameters__{name}": value})
    with pytest.raises(error, match=message):
        prepare.run(unreadable, quiet)
    assert not unreadable.prepared.exists()


def test_searched_names_are_checked_too(unreadable):
    edit_params(unreadable, hyperparameters__alhpa={"uniform": [0, 1]})
    with pytest.raises(errors.InvalidParamsError, match="alhpa: it is searched, but nothing reads"):
        prepare.run(unreadable, quiet)


@pytest.mark.parametrize("name", ["memory_size", "batch_size"])
def test_values_of_learners_are_checked_before_large_data_is_read(unreadable, monkeypatch, name):
    monkeypatch.setattr(hyperparameters, "LARGE", 1000)
    edit_params(unreadable, **{f"hyperparameters__{name}": -1})
    with pytest.raises(errors.InvalidHyperparameterError, match=name):
        prepare.run(unreadable, quiet)


def test_hyperparameters_of_another_learner_are_accepted(project):
    edit_params(project, hyperparameters__alpha=0.5, learner="FineTuning")
    prepare.run(project, quiet)


def test_registry_knows_the_hyperparameters_of_all_learners():
    names = {
        n for each in registry.LEARNERS for n in hyperparameters_of(registry.learner_class(each))
    }
    assert names == HYPERPARAMETERS
