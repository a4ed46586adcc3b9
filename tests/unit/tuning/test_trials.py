"""Trials in separate processes: shared inputs, failures, pausing, resuming and clean exit."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from small_project import snapshot
from small_searches import CONSTANTS, make_trials, run_to_end

from renate_stages.errors import ForkServerError, TrialMistakeError
from renate_stages.project import Project
from renate_stages.tuning.processes import ForkedProcesses, FreshProcesses
from renate_stages.tuning.trials import SILENCE_VARIABLE, Trials


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(*processes: int) -> None:
    until = time.monotonic() + 10
    while any(map(is_alive, processes)):
        assert time.monotonic() < until, f"{processes} are still running"
        time.sleep(0.02)


def processes_of(log: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in log if re.match(r"process \d+", line)]


def start(trials: Trials, rate: float, **more) -> int:
    return trials.start_trial({"learning_rate": rate, **more}).trial_id


def test_trial_reports_every_epoch_and_keeps_its_checkpoint(trials):
    number = start(trials, 0.1)
    reports = run_to_end(trials, number)[number]
    assert [each["epoch"] for each in reports] == [1, 2, 3]
    assert all({"accuracy", "loss", "steps"} <= each.keys() for each in reports)
    record = trials.records[number]
    assert (record.status, record.is_whole, record.finished) == ("completed", True, True)
    assert len(list(record.folder.glob("checkpoints/*/last.ckpt"))) == 1


@pytest.mark.parametrize(
    ("fault", "reason"), [("exit", "code 7"), ("kill", "code -9 (killed, most likely because")]
)
def test_trial_whose_process_dies_fails_and_other_trials_continue(trials, fault, reason):
    dying, living = start(trials, 0.1, fault=fault), start(trials, 0.1)
    assert len(run_to_end(trials, dying, living)[living]) == 3
    record = trials.records[dying]
    assert record.status == "failed" and reason in record.reason
    assert processes_of(record.log())
    assert trials.records[living].status == "completed"


def test_hanging_trial_fails_and_all_its_processes_are_killed(trials, monkeypatch):
    trials.silence = 1.0
    number = start(trials, 0.1, fault="hang")
    run_to_end(trials, number)
    record = trials.records[number]
    assert (record.status, record.reason) == ("failed", "it gave no sign of life for 1 s")
    trial, child = processes_of(record.log())
    wait_until_gone(trial, child)


def test_exception_in_a_trial_aborts_the_search_only_before_the_first_report(trials):
    first = start(trials, 0.1, fault="raise")
    with pytest.raises(TrialMistakeError, match="RuntimeError: as the fault says"):
        run_to_end(trials, first)
    run_to_end(trials, start(trials, 0.1))
    later = start(trials, 0.2, fault="raise")
    run_to_end(trials, later)
    assert trials.records[later].status == "failed"
    assert "as the fault says" in trials.records[later].reason


def test_parallel_trials_share_the_parent_and_equal_sequential_trials(
    trials, at_update_2, tmp_path
):
    """Regression: trials of Renate deleted the copy of the parent's state that others used."""
    before = snapshot(at_update_2)
    together = run_to_end(trials, *(start(trials, rate) for rate in (0.05, 0.1, 0.2)))
    assert snapshot(at_update_2) == before
    alone = make_trials(tmp_path / "alone", trials.processes)
    for number, rate in enumerate((0.05, 0.1, 0.2)):
        assert run_to_end(alone, start(alone, rate))[number] == together[number]
    for name in ("checkpoints", "reports.jsonl"):
        assert contents(trials.folder, name) == contents(alone.folder, name)
    alone.close()


def checkpoint(trials: Trials) -> dict[str, torch.Tensor]:
    (path,) = trials.folder.rglob("last.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}


def contents(folder, name: str) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and name in str(path)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_trial_waits_for_the_decision_on_its_report(trials):
    number = start(trials, 0.1)
    results = []
    while not results:
        _, results = trials.fetch_status_results([number])
    time.sleep(0.5)
    assert len(list(trials._running[number].channel.received())) == 0
    trials.stop_trial(number, results[0][1])
    assert trials.records[number].status == "stopped"


def test_stopped_trial_process_ends_and_the_best_checkpoint_is_kept(trials):
    best = start(trials, 0.1)
    run_to_end(trials, best)
    kept = contents(trials.records[best].folder, "last.ckpt")
    stopped = start(trials, 0.01)
    results = []
    while not results:
        _, results = trials.fetch_status_results([stopped])
    trials.stop_trial(stopped, results[0][1])
    wait_until_gone(*processes_of(trials.records[stopped].log()))
    assert kept and contents(trials.records[best].folder, "last.ckpt") == kept
    assert trials.records[stopped].finished


def test_paused_and_resumed_trial_equals_an_uninterrupted_trial(trials, tmp_path):
    straight = start(trials, 0.1)
    expected = run_to_end(trials, straight)[straight]
    other = make_trials(tmp_path / "other", trials.processes)
    number, seen = start(other, 0.1), []
    while len(seen) < 2:
        _, results = other.fetch_status_results([number])
        seen += [result for _, result in results]
        if results and len(seen) < 3:
            other.pause_trial(number, seen[-1])
            wait_until_gone(*processes_of(other.records[number].log()))
            other.resume_trial(number)
    seen += run_to_end(other, number)[number]
    assert seen == expected
    for name, tensor in checkpoint(trials).items():
        assert torch.equal(checkpoint(other)[name], tensor)
    assert "training goes on after epoch 2" in "\n".join(other.records[number].log())
    other.close()


class NoProcesses:
    """Stand-in for trial processes that fails if one is started."""

    def start(self, number, connection) -> None:
        raise AssertionError("a process was started")

    def ended(self) -> dict[int, int]:
        return {}

    def close(self) -> None:
        pass


def test_finished_trial_of_a_killed_search_is_not_run_again(trials):
    number = start(trials, 0.1)
    expected = run_to_end(trials, number)[number]
    again = Trials(trials.folder, NoProcesses(), lambda sample: {**CONSTANTS, **sample})
    assert run_to_end(again, start(again, 0.1))[0] == expected
    assert again.records[0].status == "completed"


def test_interrupted_trial_is_run_again_with_identical_reports(trials, tmp_path):
    number = start(trials, 0.1)
    expected = run_to_end(trials, number)[number]
    record = trials.records[number]
    reports = (record.folder / "reports.jsonl").read_text().splitlines(keepends=True)
    (record.folder / "reports.jsonl").write_text(reports[0] + reports[1][:20])
    record.drop_checkpoint()
    again = make_trials(trials.folder, trials.processes)
    assert run_to_end(again, start(again, 0.1))[0] == expected
    again.close()


def test_equal_configurations_have_separate_folders(trials):
    one, other = start(trials, 0.1), start(trials, 0.1)
    run_to_end(trials, one, other)
    assert trials.records[one].folder != trials.records[other].folder


def test_devices_are_assigned_to_trials_in_turn(trials, monkeypatch):
    trials.devices = ["3", "GPU-5"]
    numbers = [start(trials, rate) for rate in (0.1, 0.2, 0.3)]
    trials.fetch_status_results(numbers)
    assert [trials._running[number].device for number in numbers] == ["3", "GPU-5", "3"]
    run_to_end(trials, *numbers)


def test_fresh_process_gives_the_reports_of_a_forked_process(trials, at_update_2, tmp_path):
    number = start(trials, 0.1)
    expected = run_to_end(trials, number)[number]
    processes = FreshProcesses(at_update_2)
    fresh = Trials(tmp_path / "fresh", processes, lambda sample: {**CONSTANTS, **sample})
    assert run_to_end(fresh, start(fresh, 0.1))[0] == expected
    fresh.close()


SEARCH = """
import sys
from pathlib import Path
from renate_stages.project import Project
from renate_stages.tuning.processes import ForkedProcesses
from renate_stages.tuning.trials import Trials
root, folder = map(Path, sys.argv[1:])
trials = Trials(folder / "trials", ForkedProcesses(Project(root), folder / "scratch"), dict)
for rate in (0.1, 0.2):
    trials.start_trial({"learning_rate": rate, "fault": "hang"})
print(trials.processes._process.pid, flush=True)
while True:
    trials.fetch_status_results([0, 1])
"""


@pytest.mark.parametrize("killed", ["search", "server"])
def test_no_process_outlives_a_killed_search_or_fork_server(
    at_update_2, tmp_path, warm_python, killed
):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "search.py").write_text(SEARCH)
    command = [sys.executable, str(tmp_path / "search.py"), str(at_update_2.root), str(tmp_path)]
    output, writable = os.pipe()
    search = warm_python.start(command, streams=(writable, 2))
    os.close(writable)
    with os.fdopen(output) as lines:
        server = int(lines.readline())
    until, started = time.monotonic() + 60, []
    while len(started) < 4:
        assert time.monotonic() < until
        time.sleep(0.05)
        logs = [path.read_text().splitlines() for path in tmp_path.glob("trials/*/log.txt")]
        started = [process for log in logs for process in processes_of(log)]
    os.kill(search.pid if killed == "search" else server, signal.SIGKILL)
    trials = started if killed == "search" else [processes_of(log)[0] for log in logs]
    wait_until_gone(server, *trials)
    search.kill()
    search.wait()
    for process in started:  # processes that a trial started survive the death of the server
        if is_alive(process):
            os.kill(process, signal.SIGKILL)


def test_fork_server_that_cannot_start_reports_the_reason(tmp_path, warm_searches):
    processes = ForkedProcesses(Project(tmp_path / "no-project"), tmp_path)
    trials = Trials(tmp_path / "trials", processes, dict)
    trials.start_trial({"learning_rate": 0.1})
    with pytest.raises(ForkServerError, match=r"params\.yaml"):
        trials.fetch_status_results([0])
    trials.close()


def test_silence_limit_is_set_by_an_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(SILENCE_VARIABLE, "7")
    assert Trials(tmp_path, NoProcesses(), dict).silence == 7
