"""What a process is among those that share a training, and who starts them."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
import torch
from small_project import edit_params
from small_updates import updater, write_examples

from renate_stages import errors
from renate_stages.data.ranks import Ranks, averaged, gathered, ranks, values_of_all_ranks
from renate_stages.learners.avalanche.learner import AvalancheLearner
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.params import Params
from renate_stages.training import launch
from renate_stages.training.update_data import UpdateData


class ByItself(FineTuning):
    """As Avalanche's strategies do."""

    steps_itself = True


@pytest.fixture
def second(monkeypatch):
    """This process is the second of two that torchrun has started."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


def params(**trainer) -> Params:
    return Params.parse({"trainer": trainer})


def test_a_process_that_nothing_launched_is_alone():
    assert (launch.is_launched(), launch.rank(), launch.num_processes()) == (False, 0, 1)
    assert launch.own("kept") == "kept" and launch.begin(trains=True)
    assert (
        ranks() == Ranks(0, 1)
        and values_of_all_ranks("x") == ["x"]
        and averaged({"a": 2.0}) == {"a": 2.0}
    )
    tensor = torch.arange(3)
    assert gathered(tensor, 3) is tensor


def test_one_process_starts_as_many_as_there_are_devices():
    assert launch.is_to_launch(params(devices=2))
    assert not launch.is_to_launch(params())


def test_an_update_that_trains_nothing_needs_one_process():
    forget = Params.parse({"trainer": {"devices": 2}, "update": {"kind": "forget"}})
    assert not launch.is_to_launch(forget)


def test_several_nodes_are_started_from_outside():
    with pytest.raises(errors.ProcessCountError, match=r"need 4 processes.*found 1") as raised:
        launch.is_to_launch(params(devices=2, num_nodes=2))
    assert "torchrun --nnodes 2 --rdzv-backend c10d" in str(raised.value)
    assert "--nproc-per-node 2" in str(raised.value)


def test_a_launched_process_starts_no_others(second):
    assert not launch.is_to_launch(params(devices=2))
    with pytest.raises(errors.ProcessCountError, match="need 3 processes, one per device; found 2"):
        launch.is_to_launch(params(devices=3))


def test_only_the_first_process_prints_and_the_others_end_at_once(second, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert launch.begin(trains=True)
        print("said twice")
        assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_DFL)
    finally:
        sys.stdout.close()
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out == "" and launch.own("kept") == "kept-1"


@pytest.mark.parametrize(("rank", "works"), [("0", True), ("1", False)])
def test_what_is_no_training_is_left_to_the_first_process(second, monkeypatch, rank, works):
    monkeypatch.setenv("RANK", rank)
    assert launch.begin(trains=False) == works
    assert not launch.is_launched(), "what it starts is alone too"


def test_a_mistake_is_told_by_the_first_process(second, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    launch.let_others_speak(launch.MISTAKE)
    monkeypatch.setenv("RANK", "0")
    launch.let_others_speak(launch.MISTAKE)
    launch.let_others_speak(launch.DEFECT)
    assert slept == [launch.MISTAKE, launch.DEFECT]


def test_the_project_is_held_by_one(project, second, monkeypatch):
    with project.lock("train"), launch.held(project, "train"):
        pass
    monkeypatch.setenv("RANK", "0")
    with project.lock("train"), pytest.raises(errors.BusyError), launch.held(project, "train"):
        pass
    monkeypatch.setenv(launch.OURS, str(os.getppid()))
    with project.lock("train"), launch.held(project, "train"):
        pass


def test_one_process_alone_does_not_train_for_two(make_state, tmp_path):
    new = write_examples(tmp_path / "new", 8)
    with pytest.raises(errors.ProcessCountError, match="need 2 processes, one per device; found 1"):
        updater(devices=2).update(UpdateData(make_state(), new))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"devices": 2}, "devices: 2"),
        ({"num_nodes": 3}, "num_nodes: 3"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches: 2"),
        ({"compile": True}, "compile: true"),
    ],
)
def test_a_learner_that_takes_its_steps_itself_does_not_share_them(setting, said):
    with pytest.raises(errors.UnsharedLearnerError, match=said):
        updater("test_launch:ByItself", **setting)
    assert AvalancheLearner.steps_itself and not FineTuning.steps_itself


def test_shares_are_even_and_hold_each_row_once():
    for count in (1, 2, 3, 5):
        for rows in range(12):
            bounds = [Ranks(rank, count).bounds(rows) for rank in range(count)]
            assert [first for first, _ in bounds[1:]] == [last for _, last in bounds[:-1]]
            assert (bounds[0][0], bounds[-1][1]) == (0, rows)
            sizes = {last - first for first, last in bounds}
            assert max(sizes) - min(sizes) <= 1


def test_trials_train_on_one_device_with_whole_batches(project, tmp_path):
    from renate_stages.stages import prepare, restore_state
    from renate_stages.tuning.trial import TrialInputs

    prepare.run(project, lambda _: None)
    restore_state.run(project, lambda _: None)
    edit_params(project, trainer__devices=2, trainer__strategy="ddp")
    one = TrialInputs.open(project, tmp_path / "scratch").params.trainer
    assert (one.devices, one.num_processes, one.strategy) == (1, 1, "auto")
