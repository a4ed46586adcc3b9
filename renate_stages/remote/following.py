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

PAUSE = 5.0  # seconds between two requests
PAUSE_VARIABLE = "RENATE_STAGES_POLL_SECONDS"
PATIENCE = 3600.0  # seconds without an answer before we stop following the job
PATIENCE_VARIABLE = "RENATE_STAGES_PATIENCE_SECONDS"
LONGEST_PAUSE = 60.0
AROUND = 50  # lines of the container to show if the stage never began


def follow(backend: Backend, job: str, say: Callable[[str], None]) -> JobState:
    """Print a job's status and log until it has ended.

    If the service does not answer, requests are repeated at increasing intervals.

    Raises:
        UnreachableServiceError: If the service does not answer for an hour.
        RemoteServiceError: If the service refuses to report the job's state.
        DetachedError: If the user leaves the job running.
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
                say(f"{backend.service} does not answer; the job keeps running, retrying")
            phase, wait = phase or "unknown", min(2 * wait, LONGEST_PAUSE)
            continue
        except RemoteServiceError:  # for example, if the credentials have expired
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
                say(f"job {job}: {state.billable:g} s are billed")
            return state


@contextmanager
def asking(backend: Backend, job: str, say: Callable[[str], None]) -> Iterator[None]:
    """On Ctrl-C, ask whether to stop the job or leave it running; without a terminal, leave it.

    Raises:
        DetachedError: If the job is left running.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise DetachedError(job) from None
        try:
            answer = input(f"\njob {job}: [s]top it, [l]eave it running, or keep [w]aiting? ")
        except (KeyboardInterrupt, EOFError):
            raise DetachedError(job) from None
        if answer.strip().lower().startswith("s"):
            backend.stop(job)
            say(f"job {job}: asked to stop; its checkpoints are kept")
        elif not answer.strip().lower().startswith("w"):
            raise DetachedError(job) from None
    except SystemExit:  # from SIGTERM, which ends this process but must not stop the job
        say(str(DetachedError(job)))
        raise


class _StageLog:
    """The lines that the stage prints, or those of the container if the stage never begins.

    If we have no permission to read the log, warn once and keep following the job.
    """

    def __init__(self, log: Log, say: Callable[[str], None]) -> None:
        self._log: Log | None = log
        self._say = say
        self._around: list[str] = []  # lines of the container
        self._inside = self._begun = False

    def new_lines(self) -> list[str]:
        lines: list[str] = []
        for line in self._read():
            if line in (BEGIN, END):
                self._inside = line == BEGIN
                self._begun = True
            else:
                (lines if self._inside else self._around).append(line)
        return lines

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
            self._say(f"warning: the job's output cannot be shown. {error}")
            return []
