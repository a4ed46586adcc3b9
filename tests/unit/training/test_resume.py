"""A resumed training gives the same bytes as an uninterrupted one."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from small_updates import VALUES, state_of, updater, weights

from renate_stages import files
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.training.resume import SECONDS_VARIABLE, Resume, generators, restore_generators
from renate_stages.training.update_data import UpdateData

EPOCHS = 6


class Interrupt:
    """A random transform that raises KeyboardInterrupt when it is called `left` times."""

    def __init__(self) -> None:
        self.left = -1

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        noise = torch.randn(5) + random.random() + np.random.rand()
        return inputs + 0.01 * noise


def optimizers(name: str):
    def optimizer_fn():
        return {
            "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
        }[name]

    return optimizer_fn


def lr_scheduler_fn():
    return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20), "step"


@pytest.fixture(autouse=True)
def checkpoint_every_epoch(monkeypatch):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")


@pytest.mark.parametrize("interrupted_after", [20, 70, 100, 170])
@pytest.mark.parametrize(
    ("learner", "optimizer", "limits"),
    [
        ("FineTuning", "SGD", {}),
        ("ER", "Adam", {}),
        ("ER", "SGD", {"max_steps": 18, "max_epochs": 20}),
        ("Joint", "Adam", {}),
        ("ER shrunk", "Adam", {}),
        ("ER replacing", "Adam", {}),
    ],
)
def test_resumed_training_has_identical_bytes(
    make_state, new, tmp_path, learner, optimizer, limits, interrupted_after
):
    interrupt = Interrupt()
    functions = {
        "train_transform": lambda: interrupt,
        "optimizer_fn": optimizers(optimizer),
        "lr_scheduler_fn": lr_scheduler_fn,
    }
    values = {name: value for name, value in VALUES.items() if name != "learning_rate"}
    learner, _, option = learner.partition(" ")
    if option == "replacing":
        values |= {"replacement_rate": 0.1, "maturity_threshold": 3}
    elif option:
        values |= {"shrink": 0.5, "perturb": 0.3, "ema_decay": 0.9, "reinitialize": "head"}
    made = updater(
        learner,
        {**values, "dropout": 0.3},
        functions=functions,
        number=2 if option else 1,
        **{"max_epochs": EPOCHS, **limits},
    )
    parent, messages = make_state(rows=10), []
    if option:
        first = updater(learner, {"batch_size": 8, "dropout": 0.3}).update(UpdateData(parent, new))
        parent = state_of(tmp_path / "first", first, 1, parent=parent, new=new)
    straight = made.update(UpdateData(parent, new, {1: new}))
    resume = Resume.of(tmp_path / "resume", "inputs", messages.append)
    interrupt.left = interrupted_after
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        made.update(UpdateData(parent, new, {1: new}), resume=resume)
    interrupt.left = -1
    torch.randn(3), random.random(), np.random.rand()
    resumed = made.update(UpdateData(parent, new, {1: new}), resume=resume)
    assert messages == ([] if interrupted_after == 20 else messages[:1])
    assert torch.equal(weights(resumed), weights(straight))
    assert resumed.curves == straight.curves and resumed.steps == straight.steps
    for part in ("kept", "added"):
        one, other = (getattr(each.selection, part) for each in (resumed, straight))
        np.testing.assert_array_equal(one, other)


def test_training_resumes_after_the_last_complete_epoch(make_state, new, tmp_path):
    interrupt, messages = Interrupt(), []
    made = updater("FineTuning", functions={"train_transform": lambda: interrupt}, max_epochs=5)
    resume = Resume.of(tmp_path, "inputs", messages.append)
    interrupt.left = 75  # 30 examples per epoch
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        made.update(UpdateData(make_state(), new), resume=resume)
    interrupt.left = -1
    made.update(UpdateData(make_state(), new), resume=resume)
    assert messages == ["training goes on after epoch 2"] and interrupt.left == -1 - 3 * 30


@pytest.mark.parametrize("damage", ["truncated", "pickle", "empty", "other"])
def test_unreadable_checkpoint_is_ignored_with_a_warning_and_runs_no_code(
    make_state, new, tmp_path, damage, capsys
):
    import pickle

    made = updater("FineTuning", max_epochs=3)
    resume = Resume.of(tmp_path / "resume", "inputs")
    straight = made.update(UpdateData(make_state(), new), resume=resume)
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return (marker.touch, ())

    content = {
        "truncated": resume.file.read_bytes()[:1000],
        "pickle": pickle.dumps(Evil()),
        "empty": b"",
        "other": b"",
    }[damage]
    resume.file.write_bytes(content)
    if damage == "other":
        torch.save({"epoch": 3}, resume.file)
    again = made.update(UpdateData(make_state(), new), resume=resume)
    assert torch.equal(weights(again), weights(straight)) and not marker.exists()
    assert "cannot be read" in capsys.readouterr().err


def test_different_inputs_use_different_checkpoint_folders(tmp_path):
    assert Resume.of(tmp_path, "one").folder != Resume.of(tmp_path, "other").folder


def test_random_generators_are_restored():
    saved = generators()
    first = (random.random(), np.random.rand(), float(torch.rand(1)))
    restore_generators(saved)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == first


@pytest.mark.usefixtures("unrehearsed")
def test_train_stage_resumes_and_then_deletes_its_checkpoints(project, monkeypatch):
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, lambda message: None)
    first = files.inventory(project.state)
    metrics = project.update_metrics.read_bytes()
    assert not project.checkpoints.exists()

    from renate_stages.training.measured_update import MeasuredUpdate

    whole = MeasuredUpdate.write_state

    def killed(self, target, tuning_history, *, checkpoint):
        raise KeyboardInterrupt

    monkeypatch.setattr(MeasuredUpdate, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(project, lambda message: None)
    assert len(list(project.checkpoints.rglob("last.ckpt"))) == 1
    monkeypatch.setattr(MeasuredUpdate, "write_state", whole)
    messages = []
    train.run(project, messages.append)
    assert messages[0] == "training was complete after epoch 2"
    assert files.inventory(project.state) == first
    assert project.update_metrics.read_bytes() == metrics
    assert not project.checkpoints.exists()
