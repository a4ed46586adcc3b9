"""Follow a job's status and log until it ends; ask what to do on Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from renate_stages.errors import DetachedError, RemoteServiceError, UnreachableServiceError
from renate_stages.remote.backend import Backend, JobState, Log
from renate_stages.remote.start import BEGIN, END

PAUSE = 5.0  # seconds between two looks
PAUSE_VARIABLE = "RENATE_STAGES_POLL_SECONDS"
PATIENCE = 3600.0  # seconds without an answer, after which we leave the job alone
PATIENCE_VARIABLE = "RENATE_STAGES_PATIENCE_SECONDS"
LONGEST_PAUSE = 60.0
AROUND = 50  # lines of the container that are shown where the stage has not begun


def follow(backend: Backend, job: str, say: Callable[[str], None]) -> JobState:
    """Show what a job does until it has ended.

    While the service does not answer, it is asked again, less and less often.

    Raises:
        UnreachableServiceError: If it does not answer for an hour.
        RemoteServiceError: If it refuses to say how the job stands.
        DetachedError: If the user leaves the job alone.
    """
    log = _StageLog(backend.log(job), say)
    pause = float(os.environ.get(PAUSE_VARIABLE, PAUSE))
    patience = float(os.environ.get(PATIENCE_VARIABLE, PATIENCE))
    phase, answered, wait = "", time.monotonic(), pause
    while True:
        try:
            with asking(backend, job, say):
                time.sleep(wait if phase else 0)
                state = backend.state(job)
                for line in log.new_lines():
                    say(line)
        except ConnectionError as error:
            silent = time.monotonic() - answered
            if silent > patience:
                raise UnreachableServiceError(
                    backend.service, job, silent / 60, str(error)
                ) from error
            if wait == pause:
                say(f"{backend.service} does not answer; the job goes on, and is asked for again")
            phase, wait = phase or "unknown", min(2 * wait, LONGEST_PAUSE)
            continue
        except RemoteServiceError:  # credentials that have expired, say
            say(str(DetachedError(job)))
            raise
        if wait > pause:
            say(f"{backend.service} answers again")
        answered, wait = time.monotonic(), pause
        if state.phase != phase:
            phase = state.phase
            say(f"job {job}: {phase}")
        if state.status != "running":
            for line in log.rest(state):
                say(line)
            if state.billable is not None:
                say(f"job {job}: {state.billable:g} s are paid for")
            return state


@contextmanager
def asking(backend: Backend, job: str, say: Callable[[str], None]) -> Iterator[None]:
    """Ask, on Ctrl-C, whether to stop the job or to leave it; where nobody can answer, leave it.

    Raises:
        DetachedError: If it is left.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise DetachedError(job) from None
        try:
            answer = input(f"\njob {job}: [s]top it, [l]eave it running, or go on [w]aiting? ")
        except (KeyboardInterrupt, EOFError):
            raise DetachedError(job) from None
        if answer.strip().lower().startswith("s"):
            backend.stop(job)
            say(f"job {job}: asked to stop; what it saved so far stays")
        elif not answer.strip().lower().startswith("w"):
            raise DetachedError(job) from None
    except SystemExit:  # of SIGTERM: whoever ends us does not mean the job
        say(str(DetachedError(job)))
        raise


class _StageLog:
    """The lines of the stage, without those of the container around it, unless it never begins.

    A log that may not be read is no reason to leave the job: that is said once.
    """

    def __init__(self, log: Log, say: Callable[[str], None]) -> None:
        self._log: Log | None = log
        self._say = say
        self._around: list[str] = []  # what the container says
        self._inside = self._begun = False

    def new_lines(self) -> list[str]:
        found: list[str] = []
        for line in self._read():
            if line in (BEGIN, END):
                self._inside = line == BEGIN
                self._begun = True
            else:
                (found if self._inside else self._around).append(line)
        return found

    def rest(self, state: JobState) -> list[str]:
        """Return the last lines of a job that has ended."""
        try:
            lines = self.new_lines()
        except ConnectionError:
            lines = []
        never = not self._begun and state.status != "completed"
        return [*lines, *self._around[-AROUND:]] if never else lines

    def _read(self) -> list[str]:
        try:
            return self._log.new_lines() if self._log is not None else []
        except RemoteServiceError as error:
            self._log = None
            self._say(f"warning: what the job prints cannot be shown. {error}")
            return []
