"""The rehearsal of an update on a few rows finds what would fail after training."""

from __future__ import annotations

import json
import operator

import pytest
from small_project import edit_config, edit_params, move_on, snapshot

from renate_stages import errors
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.training import rehearsal
from renate_stages.training.updater import Updater


def quiet(message: str) -> None:
    pass


def until_train(project) -> None:
    for stage in (prepare, restore_state, tune):
        stage.run(project, quiet)


def forbid_training(monkeypatch) -> None:
    """Let a training on more than a few rows fail the test."""
    train_ = Updater.train

    def guarded(self, data, **options):
        if len(data.new) > rehearsal.ROWS:
            pytest.fail("training ran")
        return train_(self, data, **options)

    monkeypatch.setattr(Updater, "train", guarded)


UNSTORED = """
    def get_extra_state(self):
        return {"lock": object()}

    def set_extra_state(self, state):
        pass
"""
LATE = """
    def state_dict(self, *args, **kwargs):
        self.written = getattr(self, "written", 0) + 1
        if not self.training:
            raise ValueError("no state in evaluation mode")
        return super().state_dict(*args, **kwargs)
"""


def with_method(project, method: str) -> None:
    """Let the user's model have a method, below a backbone of its own."""
    code = project.user_config.read_text()
    backbone = f"\n\nclass Backbone(torch.nn.Linear):{method}\n\n\ndef model_fn("
    start = code.index("def model_fn(")
    code = code[:start].rstrip() + backbone + code[start + len("def model_fn(") :]
    project.user_config.write_text(code)
    edit_config(project, "MLP(", "_with_backbone(")
    with project.user_config.open("a") as stream:
        stream.write(
            "\n\ndef _with_backbone(**arguments):\n"
            "    model = MLP(**arguments)\n"
            "    model.other = Backbone(1, 1)\n"
            "    return model\n"
        )


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (UNSTORED, errors.StoredArgumentError, r"the extra state other\._extra_state\['lock'\]"),
        (LATE, ValueError, "no state in evaluation mode"),
    ],
)
def test_state_that_cannot_be_written_is_found_before_training(
    project, monkeypatch, method, error, message
):
    with_method(project, method)
    until_train(project)
    before = snapshot(project)
    forbid_training(monkeypatch)
    with pytest.raises(error, match=message):
        train.run(project, quiet)
    assert snapshot(project) == before


def test_unforeseen_error_of_ours_names_the_part_that_failed(project, monkeypatch):
    until_train(project)
    forbid_training(monkeypatch)
    # An error from a line of the library: a folder has no items.
    fails = operator.getitem
    monkeypatch.setattr("renate_stages.training.measured_update.write_learner", fails)
    with pytest.raises(
        rehearsal.RehearsalError, match="writing the state failed for a few rows"
    ) as raised:
        train.run(project, quiet)
    assert isinstance(raised.value.__cause__, TypeError)


def test_first_trial_of_a_search_rehearses_the_update(project, warm_searches):
    with_method(project, UNSTORED)
    space = {"uniform": [0.01, 0.1]}
    edit_params(project, hyperparameters__learning_rate=space, tuning__max_trials=3)
    for stage in (prepare, restore_state):
        stage.run(project, quiet)
    with pytest.raises(
        errors.TrialMistakeError, match=r"extra state other\._extra_state\['lock'\]"
    ):
        tune.run(project, quiet)


@pytest.mark.parametrize("learner", ["DER++", "EWC", "iCaRL", "RanPAC"])
def test_rehearsal_does_not_change_the_update(project, monkeypatch, learner):
    """With memory, earlier holdouts, and learners that store fields, tensors and statistics."""
    edit_params(project, learner=learner, trainer__max_epochs=1)
    if learner == "RanPAC":
        edit_params(project, hyperparameters__num_random_features=50)
    until_train(project)
    train.run(project, quiet)
    move_on(project)
    until_train(project)
    train.run(project, quiet)
    rehearsed = snapshot(project)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
    train.run(project, quiet)
    assert snapshot(project) == rehearsed
    assert json.loads(project.update_metrics.read_text())["update"] == 2
