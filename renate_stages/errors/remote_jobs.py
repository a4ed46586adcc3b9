"""Errors of stages that run as jobs in the cloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from renate_stages.errors.base import RenateStagesError


class StageDefinitionError(RenateStagesError):
    """A stage in `dvc.yaml` cannot be run as a job."""

    def __init__(self, path: Path, stage: str, problem: str) -> None:
        super().__init__(
            f"{path}, stage {stage}: {problem}.\nTo fix this: copy the stage from the dvc.yaml of "
            "a newly generated project, or run it on this machine: "
            "`RENATE_STAGES_BACKEND=local dvc repro`."
        )


class NotInstalledHereError(RenateStagesError):
    """Jobs need a package that is not installed on this machine."""

    def __init__(self, path: str, names: Iterable[str]) -> None:
        super().__init__(
            f"{path} lists packages that are not installed on this machine: "
            f"{', '.join(sorted(names))}. Jobs install the same versions as this machine, so that "
            "training runs with what you tested.\n"
            f"To fix this: run `pip install -r {path}`."
        )


class RemoteServiceError(RenateStagesError):
    """A cloud service refused a request."""

    def __init__(self, service: str, asked: str, answer: str, cure: str) -> None:
        super().__init__(f"{service} refused {asked}: {answer}\nTo fix this: {cure}.")


class UnreachableServiceError(RenateStagesError):
    """A cloud service stopped responding while a job was running."""

    exit_code = 1

    def __init__(self, service: str, job: str, minutes: float, reason: str) -> None:
        super().__init__(
            f"{service} has not responded for {minutes:.0f} minutes ({reason}). The job {job} "
            "keeps running, and nothing is lost.\nTo fix this: when the network is back, run "
            "`dvc repro` again: it attaches to the job, or fetches its results."
        )


class DetachedError(RenateStagesError):
    """The user left a job running."""

    exit_code = 130

    def __init__(self, job: str) -> None:
        super().__init__(
            f"detached: the job {job} keeps running. `dvc repro` attaches to it again, or fetches "
            f"its results; `renate-stages remote stop {job}` stops it."
        )


class RemoteJobStoppedError(RenateStagesError):
    """A job was stopped before it finished."""

    exit_code = 1

    def __init__(self, job: str, why: str, cure: str) -> None:
        super().__init__(f"the job {job} was stopped before it finished: {why}.\n{cure}")


class RemoteJobFailedError(RenateStagesError):
    """A stage failed in its job.

    Args:
        job: Name of the job.
        reason: The reason that the service reports.
        lines: The last lines that the stage printed, including its traceback.
        exit_code: Exit code of the stage in the job; 2 for a user's mistake.
        log: Path or URL of the full log.
    """

    def __init__(
        self, job: str, reason: str, lines: Sequence[str], exit_code: int, log: str
    ) -> None:
        self.exit_code = exit_code
        tail = "\n".join(f"  | {line}" for line in lines)
        super().__init__(
            f"the job {job} failed: {reason}\n" + (f"{tail}\n" if tail else "") + f"Full log: {log}"
        )


class DamagedOutputError(RenateStagesError):
    """The outputs of a job are damaged, incomplete, or do not match the stage in `dvc.yaml`."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"The outputs of the job cannot be used, and no file of the project was changed. "
            f"{url}: {problem}.\nTo fix this: delete {url}, then run `dvc repro`, which runs the "
            "stage again."
        )
