"""Launch the processes of a distributed training: ranks, process counts, errors and locks."""

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


class SelfSteppingLearner(FineTuning):
    """Learner that runs optimizer steps itself, like Avalanche's strategies."""

    steps_itself = True


@pytest.fixture
def rank_1(monkeypatch):
    """Make this process rank 1 of two processes started by torchrun."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


def params(**trainer) -> Params:
    return Params.parse({"trainer": trainer})


def test_process_without_a_launcher_is_rank_0_of_1():
    assert (launch.is_launched(), launch.rank(), launch.num_processes()) == (False, 0, 1)
    assert launch.own("kept") == "kept" and launch.begin(trains=True)
    assert (
        ranks() == Ranks(0, 1)
        and values_of_all_ranks("x") == ["x"]
        and averaged({"a": 2.0}) == {"a": 2.0}
    )
    tensor = torch.arange(3)
    assert gathered(tensor, 3) is tensor


def test_training_on_several_devices_launches_processes():
    assert launch.is_to_launch(params(devices=2))
    assert not launch.is_to_launch(params())


def test_forget_update_runs_in_one_process():
    forget = Params.parse({"trainer": {"devices": 2}, "update": {"kind": "forget"}})
    assert not launch.is_to_launch(forget)


def test_multi_node_training_uses_the_external_launcher():
    with pytest.raises(errors.ProcessCountError, match=r"need 4 processes.*found 1") as raised:
        launch.is_to_launch(params(devices=2, num_nodes=2))
    assert "torchrun --nnodes 2 --rdzv-backend c10d" in str(raised.value)
    assert "--nproc-per-node 2" in str(raised.value)


def test_launched_process_launches_no_others_and_checks_the_process_count(rank_1):
    assert not launch.is_to_launch(params(devices=2))
    with pytest.raises(errors.ProcessCountError, match="need 3 processes, one per device; found 2"):
        launch.is_to_launch(params(devices=3))


def test_only_rank_0_prints_and_other_ranks_handle_sigterm(rank_1, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert launch.begin(trains=True)
        print("printed by rank 1")
        assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_DFL)
    finally:
        sys.stdout.close()
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out == "" and launch.own("kept") == "kept-1"


@pytest.mark.parametrize(("rank", "works"), [("0", True), ("1", False)])
def test_commands_without_training_run_on_rank_0_only(rank_1, monkeypatch, rank, works):
    monkeypatch.setenv("RANK", rank)
    assert launch.begin(trains=False) == works
    assert not launch.is_launched(), "its subprocesses belong to no process group"


def test_user_error_is_reported_by_rank_0_only(rank_1, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    launch.let_others_speak(launch.MISTAKE)
    monkeypatch.setenv("RANK", "0")
    launch.let_others_speak(launch.MISTAKE)
    launch.let_others_speak(launch.DEFECT)
    assert slept == [launch.MISTAKE, launch.DEFECT]


def test_project_is_locked_by_rank_0_or_by_the_launcher_only(project, rank_1, monkeypatch):
    with project.lock("train"), launch.held(project, "train"):
        pass
    monkeypatch.setenv("RANK", "0")
    with project.lock("train"), pytest.raises(errors.BusyError), launch.held(project, "train"):
        pass
    monkeypatch.setenv(launch.OURS, str(os.getppid()))
    with project.lock("train"), launch.held(project, "train"):
        pass


def test_training_with_fewer_processes_than_devices_is_refused(make_state, tmp_path):
    new = write_examples(tmp_path / "new", 8)
    with pytest.raises(errors.ProcessCountError, match="need 2 processes, one per device; found 1"):
        updater(devices=2).update(UpdateData(make_state(), new))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"devices": 2}, "devices: 2"),
        ({"num_nodes": 3}, "num_nodes: 3"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches: 2"),
        ({"compile": True}, "compile: true"),
    ],
)
def test_self_stepping_learner_refuses_distributed_accumulated_or_compiled_training(
    setting, message
):
    with pytest.raises(errors.UnsharedLearnerError, match=message):
        updater("test_launch:SelfSteppingLearner", **setting)
    assert AvalancheLearner.steps_itself and not FineTuning.steps_itself


def test_rows_are_divided_evenly_between_ranks_without_overlap():
    for count in (1, 2, 3, 5):
        for rows in range(12):
            bounds = [Ranks(rank, count).bounds(rows) for rank in range(count)]
            assert [first for first, _ in bounds[1:]] == [last for _, last in bounds[:-1]]
            assert (bounds[0][0], bounds[-1][1]) == (0, rows)
            sizes = {last - first for first, last in bounds}
            assert max(sizes) - min(sizes) <= 1


def test_trials_train_on_one_device_without_a_strategy(project, tmp_path):
    from renate_stages.stages import prepare, restore_state
    from renate_stages.tuning.trial import TrialInputs

    prepare.run(project, lambda _: None)
    restore_state.run(project, lambda _: None)
    edit_params(project, trainer__devices=2, trainer__strategy="ddp")
    one = TrialInputs.open(project, tmp_path / "scratch").params.trainer
    assert (one.devices, one.num_processes, one.strategy) == (1, 1, "auto")
