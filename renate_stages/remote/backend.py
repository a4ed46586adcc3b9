"""The interface of a service that runs jobs. `sagemaker.py` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["running", "completed", "failed", "stopped"]


@dataclass(frozen=True)
class JobState:
    """How a job stands.

    Args:
        name: The service's name of it.
        status: Whether it runs, and else how it ended.
        phase: What it does now, in the service's words.
        reason: Why it failed or was stopped; empty otherwise.
        seconds: That it has been training, as far as the service says.
        billable: Seconds that are paid for; None while unknown.
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
        """Return the lines since this was last called; raises `ConnectionError` without answer."""
        ...


class Backend(Protocol):
    """Runs jobs. Its methods raise `ConnectionError` where the service does not answer."""

    service: str

    def submit(self, name: str, url: str, folder: str, digest: str) -> str:
        """Start a job, or find the one that an earlier call has started.

        Args:
            name: What the job is called; the service's name begins with it.
            url: Under which all its files lie.
            folder: Its own files' place there.
            digest: SHA-256 of its `job.json`, which the job compares with the one that it gets.

        Returns:
            The service's name of it.

        Raises:
            RemoteServiceError: If the service refuses.
        """
        ...

    def find(self, name: str) -> Sequence[JobState]:
        """Return the jobs of this name, the latest first."""
        ...

    def state(self, job: str) -> JobState: ...
    def log(self, job: str) -> Log: ...
    def log_address(self, job: str) -> str: ...
    def stop(self, job: str) -> None: ...
