"""Follow a cloud job: its log, its states, an unreachable service and Ctrl-C."""

from __future__ import annotations

import io
import sys

import pytest

from renate_stages.errors import DetachedError, RemoteServiceError, UnreachableServiceError
from renate_stages.remote.backend import JobState
from renate_stages.remote.following import follow

RUNNING = JobState("", "running", "Training")
DONE = JobState("", "completed", "Completed")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("renate_stages.remote.following.LONGEST_PAUSE", 0)


@pytest.fixture
def messages() -> list[str]:
    return []


def test_stage_log_lines_are_shown_and_each_job_state_once(provider, messages):
    provider.states = [RUNNING, RUNNING, DONE]
    assert follow(provider, "job", messages.append).status == "completed"
    assert messages == ["training", "job job: Training", "job job: Completed"]


def test_billed_seconds_are_reported(provider, messages):
    provider.state = lambda job: JobState(job, "completed", "Completed", billable=70)
    follow(provider, "job", messages.append)
    assert messages[-1] == "job job: 70 s are billed"


def test_container_log_is_shown_if_the_stage_never_starts(provider, messages):
    provider.lines = ["no such image"]
    provider.states = [JobState("", "failed", "Failed", "exit code: 1")]
    follow(provider, "job", messages.append)
    assert messages == ["job job: Failed", "no such image"]


def test_unreachable_service_is_retried(provider, messages):
    provider.states = [RUNNING, ConnectionError("reset"), ConnectionError("reset"), DONE]
    assert follow(provider, "job", messages.append).status == "completed"
    assert "Place does not answer; the job keeps running, retrying" in messages
    assert "job job: Completed" in messages


def test_following_gives_up_on_an_unreachable_service_and_keeps_the_job_running(
    provider, messages, monkeypatch
):
    monkeypatch.setenv("RENATE_STAGES_PATIENCE_SECONDS", "0")
    provider.states = [RUNNING, ConnectionError("reset")]
    with pytest.raises(UnreachableServiceError, match="keeps running"):
        follow(provider, "job", messages.append)
    assert provider.stopped == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def press_ctrl_c(provider, *states) -> None:
    provider.states = [RUNNING, KeyboardInterrupt(), *states]

    def state(job):
        found = provider.states.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    provider.state = state


def test_ctrl_c_without_a_terminal_detaches_from_the_running_job(provider, messages, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("s\n"))
    press_ctrl_c(provider)
    with pytest.raises(DetachedError, match="remote stop job") as caught:
        follow(provider, "job", messages.append)
    assert caught.value.exit_code == 130
    assert provider.stopped == []


def test_ctrl_c_with_answer_leave_detaches_from_the_running_job(provider, messages, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("l\n"))
    press_ctrl_c(provider)
    with pytest.raises(DetachedError):
        follow(provider, "job", messages.append)
    assert provider.stopped == []


def test_ctrl_c_with_answer_stop_stops_the_job(provider, messages, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("s\n"))
    press_ctrl_c(provider, JobState("job", "stopped", "Stopped"))
    assert follow(provider, "job", messages.append).status == "stopped"
    assert provider.stopped == ["job"]


def test_ctrl_c_with_answer_wait_continues_to_follow_the_job(provider, messages, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("w\n"))
    press_ctrl_c(provider, RUNNING, JobState("job", "completed", "Completed"))
    assert follow(provider, "job", messages.append).status == "completed"
    assert provider.stopped == []


REFUSED = RemoteServiceError("AWS", "the log", "AccessDeniedException: no", "ask for it")


def test_unreadable_log_is_reported_once_and_the_job_is_followed(provider, messages):
    def refuse():
        raise REFUSED

    provider.new_lines = refuse
    provider.states = [RUNNING, RUNNING, DONE]
    assert follow(provider, "job", messages.append).status == "completed"
    assert len([line for line in messages if "cannot be shown" in line]) == 1


def test_denied_access_to_the_job_state_reports_that_the_job_keeps_running(provider, messages):
    provider.states = [RUNNING, REFUSED]
    with pytest.raises(RemoteServiceError):
        follow(provider, "job", messages.append)
    assert "the job job keeps running" in messages[-1]
    assert provider.stopped == []
