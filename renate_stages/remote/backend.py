"""The interface of a service that runs jobs, which `sagemaker.py` implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["running", "completed", "failed", "stopped"]


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Args:
        name: The service's name of the job.
        status: Whether the job is running, or how it ended.
        phase: The current phase, in the service's words.
        reason: Why the job failed or was stopped; empty otherwise.
        seconds: Training time so far; None if the service does not report it.
        billable: Billed seconds; None while unknown.
    """

    name: str
    status: Status
    phase: str
    reason: str = ""
    seconds: float | None = None
    billable: float | None = None


class Log(Protocol):
    """The lines that a job prints."""

    def new_lines(self) -> list[str]:
        """Return the lines since the last call; raise `ConnectionError` if there is no answer."""
        ...


class Backend(Protocol):
    """Runs jobs. Its methods raise `ConnectionError` if the service does not answer."""

    service: str

    def submit(self, name: str, url: str, folder: str, digest: str) -> str:
        """Start a job, or find the one that an earlier call has started.

        Args:
            name: Name of the job; the service's name starts with it.
            url: URL under which all files of the job are stored.
            folder: The job's own folder under `url`.
            digest: SHA-256 of its `job.json`, with which the job verifies the file it receives.

        Returns:
            The service's name of the job.

        Raises:
            RemoteServiceError: If the service refuses.
        """
        ...

    def find(self, name: str) -> Sequence[JobState]:
        """Return the jobs with this name, the latest first."""
        ...

    def state(self, job: str) -> JobState: ...
    def log(self, job: str) -> Log: ...
    def log_address(self, job: str) -> str: ...
    def stop(self, job: str) -> None: ...
