"""Files edited while a stage runs: no output is recorded for inputs that the stage did not read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from small_project import edit_config, edit_params, snapshot

from renate_stages import errors, files
from renate_stages.files import yaml_file
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import new_data
from renate_stages.training.measured_update import MeasuredUpdate
from renate_stages.training.resume import SECONDS_VARIABLE
from renate_stages.user.config import UserConfig

pytestmark = pytest.mark.usefixtures("no_pictures")

LOSSES = """import torch


def loss(outputs, targets):
    return {factor} * torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
"""
LAZY = """import named_nowhere

    losses = __import__("importlib").import_module("losses")
    (Path(__file__).parent / "note.txt").read_text()
    return losses.loss"""


def quiet(message: str) -> None:
    pass


def forget_imports() -> None:
    """Remove the user's modules from `sys.modules`, as in a new process."""
    for name in ("losses", "named_nowhere"):
        sys.modules.pop(name, None)


@pytest.fixture
def with_losses(project, monkeypatch):
    """A project after `tune`, whose loss is imported from `losses.py` when it is called."""
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    (project.root / "losses.py").write_text(LOSSES.format(factor=1))
    (project.root / "named_nowhere.py").write_text("")
    (project.root / "note.txt").write_text("1")

    def change(content):
        for stage in ("tune", "train", "export"):
            content["stages"][stage]["deps"] += ["losses.py", "named_nowhere.py", "note.txt"]

    yaml_file.edit(project.pipeline, change)
    edit_config(project, 'return torch.nn.CrossEntropyLoss(reduction="none")', LAZY)
    for stage in (prepare, restore_state, tune):
        stage.run(project, quiet)
    forget_imports()
    yield project
    forget_imports()


def interrupt_training(project, monkeypatch, edit) -> None:
    """Train, edit a file after the last epoch, and stop before any output is written."""
    whole = MeasuredUpdate.run

    def edited(*given, **named):
        whole(*given, **named)
        edit()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MeasuredUpdate, "run", edited)
        with pytest.raises(KeyboardInterrupt):
            train.run(project, quiet)
    forget_imports()


def trained(project) -> tuple[str, dict]:
    """Train; return the first message, and the size and hash of each written file."""
    messages: list[str] = []
    train.run(project, messages.append)
    forget_imports()
    return messages[0], files.inventory(project.state)


@pytest.mark.parametrize(
    ("name", "text"), [("losses.py", LOSSES.format(factor=30)), ("note.txt", "2")]
)
@pytest.mark.usefixtures("unrehearsed")
def test_training_restarts_if_a_file_changed_since_checkpoint(with_losses, monkeypatch, name, text):
    project = with_losses
    path = project.root / name
    old = path.read_text()
    interrupt_training(project, monkeypatch, lambda: path.write_text(text))
    assert len(list(project.checkpoints.rglob("last.ckpt"))) == 1

    first, new = trained(project)
    assert first == f"training starts anew: {name} changed since the checkpoint"
    _, undisturbed = trained(project)
    assert new == undisturbed

    # With the old content restored, its checkpoint is found again, and no training is lost.
    path.write_text(old)
    interrupt_training(project, monkeypatch, lambda: path.write_text(text))
    path.write_text(old)
    first, again = trained(project)
    assert first == "training was complete after epoch 2"
    assert trained(project)[1] == again
    assert again["state.json"] != new["state.json"], "the digest of the inputs differs"


@pytest.mark.usefixtures("unrehearsed")
def test_file_missing_from_the_key_is_compared_by_checkpoint_record(with_losses, monkeypatch):
    """`run_training_job` computes its key before user functions import further modules."""
    from renate_stages.state import inputs as inputs_module

    own = {"renate_config.py": "the same"}
    monkeypatch.setattr(inputs_module, "user_files", lambda *_: own)
    project = with_losses
    interrupt_training(project, monkeypatch, lambda: None)
    (project.root / "losses.py").write_text(LOSSES.format(factor=30))
    first, _ = trained(project)
    assert first == "training starts anew: losses.py changed since the checkpoint"


def test_edit_during_training_fails_before_the_state_is_written(with_losses, monkeypatch):
    project = with_losses
    _, undisturbed = trained(project)
    before = snapshot(project)
    whole = MeasuredUpdate.run

    def edited(*given, **named):
        found = whole(*given, **named)
        (project.root / "losses.py").write_text(LOSSES.format(factor=30))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(MeasuredUpdate, "run", edited)
        with pytest.raises(errors.ChangedInputsError, match=r"^losses\.py changed while train ran"):
            train.run(project, quiet)
    forget_imports()
    (project.root / "losses.py").write_text(LOSSES.format(factor=1))
    assert snapshot(project) == before
    first, again = trained(project)
    assert first == "training was complete after epoch 2" and again == undisturbed


def test_edit_between_hashing_and_import_fails_before_training(with_losses, monkeypatch):
    project = with_losses
    load = UserConfig.of.__func__

    def late(cls, *given, **named):
        project.user_config.write_text(project.user_config.read_text() + "\n# edited\n")
        return load(cls, *given, **named)

    monkeypatch.setattr(UserConfig, "of", classmethod(late))
    monkeypatch.setattr(MeasuredUpdate, "run", lambda *_, **__: pytest.fail("training ran"))
    with pytest.raises(errors.ChangedInputsError, match=r"renate_config\.py changed while train"):
        train.run(project, quiet)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"trainer__threads": 2}, "params.yaml:trainer"),
        ({"tuning__max_trials": 3, "hyperparameters__learning_rate": 1.0}, None),
    ],
)
def test_edit_of_params_fails_if_the_stage_declares_them(with_losses, monkeypatch, change, named):
    project, whole = with_losses, MeasuredUpdate.run

    def edited(*given, **named):
        edit_params(project, **change)
        return whole(*given, **named)

    monkeypatch.setattr(MeasuredUpdate, "run", edited)
    if named is None:
        train.run(project, quiet)
        return
    with pytest.raises(errors.ChangedInputsError, match=named):
        train.run(project, quiet)
    assert not project.state.exists()


def test_edit_of_the_forget_list_during_training_fails(with_losses, monkeypatch):
    project, whole = with_losses, MeasuredUpdate.run

    def edited(*given, **named):
        project.forget_list.write_text("ids: []\n")
        return whole(*given, **named)

    monkeypatch.setattr(MeasuredUpdate, "run", edited)
    with pytest.raises(errors.ChangedInputsError, match=r"forget\.yaml"):
        train.run(project, quiet)


def test_edit_of_incoming_data_during_prepare_fails(project, monkeypatch):
    whole = new_data.ingest_splits

    def edited(*given):
        path = project.incoming / "targets.npy"
        labels = np.load(path)
        path.unlink()
        np.save(path, labels)
        return whole(*given)

    monkeypatch.setattr(new_data, "ingest_splits", edited)
    with pytest.raises(
        errors.ChangedInputsError, match=r"data/incoming/targets\.npy changed while"
    ):
        prepare.run(project, quiet)


def test_edit_during_export_fails_and_keeps_the_previous_export(with_losses, monkeypatch):
    project = with_losses
    trained(project)
    export.run(project, quiet)
    before = snapshot(project)
    forget_imports()
    whole = export.draw_or_warn

    def edited(*given):
        (project.root / "note.txt").write_text("2")
        return whole(*given)

    monkeypatch.setattr(export, "draw_or_warn", edited)
    with pytest.raises(errors.ChangedInputsError, match=r"note\.txt changed while export ran"):
        export.run(project, quiet)
    (project.root / "note.txt").write_text("1")
    assert snapshot(project) == before
