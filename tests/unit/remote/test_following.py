"""Following a job: its log and states, a service that is silent for a while, and Ctrl-C."""

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
def said() -> list[str]:
    return []


def test_the_lines_of_the_stage_are_shown_and_each_state_once(place, said):
    place.states = [RUNNING, RUNNING, DONE]
    assert follow(place, "job", said.append).status == "completed"
    assert said == ["training", "job job: Training", "job job: Completed"]


def test_what_is_paid_for_is_said(place, said):
    place.state = lambda job: JobState(job, "completed", "Completed", billable=70)
    follow(place, "job", said.append)
    assert said[-1] == "job job: 70 s are billed"


def test_where_the_stage_never_begins_the_container_is_shown(place, said):
    place.lines = ["no such image"]
    place.states = [JobState("", "failed", "Failed", "exit code: 1")]
    follow(place, "job", said.append)
    assert said == ["job job: Failed", "no such image"]


def test_a_service_that_is_silent_for_a_while_is_asked_again(place, said):
    place.states = [RUNNING, ConnectionError("reset"), ConnectionError("reset"), DONE]
    assert follow(place, "job", said.append).status == "completed"
    assert "Place does not answer; the job keeps running, retrying" in said
    assert "job job: Completed" in said


def test_a_service_that_is_silent_for_too_long_is_given_up_and_the_job_left(
    place, said, monkeypatch
):
    monkeypatch.setenv("RENATE_STAGES_PATIENCE_SECONDS", "0")
    place.states = [RUNNING, ConnectionError("reset")]
    with pytest.raises(UnreachableServiceError, match="keeps running"):
        follow(place, "job", said.append)
    assert place.stopped == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def interrupted(place, *states) -> None:
    place.states = [RUNNING, KeyboardInterrupt(), *states]

    def state(job):
        found = place.states.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    place.state = state


def test_ctrl_c_without_a_terminal_leaves_the_job(place, said, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("s\n"))
    interrupted(place)
    with pytest.raises(DetachedError, match="remote stop job") as caught:
        follow(place, "job", said.append)
    assert caught.value.exit_code == 130
    assert place.stopped == []


def test_ctrl_c_asks_and_leaves_the_job(place, said, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("l\n"))
    interrupted(place)
    with pytest.raises(DetachedError):
        follow(place, "job", said.append)
    assert place.stopped == []


def test_ctrl_c_asks_and_stops_the_job(place, said, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("s\n"))
    interrupted(place, JobState("job", "stopped", "Stopped"))
    assert follow(place, "job", said.append).status == "stopped"
    assert place.stopped == ["job"]


def test_ctrl_c_asks_and_goes_on_waiting(place, said, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("w\n"))
    interrupted(place, RUNNING, JobState("job", "completed", "Completed"))
    assert follow(place, "job", said.append).status == "completed"
    assert place.stopped == []


REFUSED = RemoteServiceError("AWS", "the log", "AccessDeniedException: no", "ask for it")


def test_a_log_that_may_not_be_read_is_said_once_and_the_job_followed(place, said):
    def refuse():
        raise REFUSED

    place.new_lines = refuse
    place.states = [RUNNING, RUNNING, DONE]
    assert follow(place, "job", said.append).status == "completed"
    assert len([line for line in said if "cannot be shown" in line]) == 1


def test_where_we_are_refused_the_job_goes_on_and_we_say_so(place, said):
    place.states = [RUNNING, REFUSED]
    with pytest.raises(RemoteServiceError):
        follow(place, "job", said.append)
    assert "the job job keeps running" in said[-1]
    assert place.stopped == []
