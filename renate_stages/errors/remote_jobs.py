"""Mistakes and mishaps of stages that run elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from renate_stages.errors.base import RenateStagesError


class StageDefinitionError(RenateStagesError):
    """A stage in `dvc.yaml` that cannot be run elsewhere."""

    def __init__(self, path: Path, stage: str, problem: str) -> None:
        super().__init__(
            f"{path}, stage {stage}: {problem}.\nTo mend it: take the stage of a newly generated "
            "project's dvc.yaml, or run it here: RENATE_STAGES_BACKEND=local dvc repro"
        )


class NotInstalledHereError(RenateStagesError):
    """A package that jobs shall have, and that is not installed here."""

    def __init__(self, path: str, names: Iterable[str]) -> None:
        super().__init__(
            f"{path} names packages that are not installed here: {', '.join(sorted(names))}. Jobs "
            "get the versions that are installed here, so that a model is trained with what it "
            f"was tried with.\nTo mend it: pip install -r {path}"
        )


class RemoteServiceError(RenateStagesError):
    """A cloud service refuses what is asked of it."""

    def __init__(self, service: str, asked: str, answer: str, cure: str) -> None:
        super().__init__(f"{service} refuses {asked}: {answer}\nTo mend it: {cure}.")


class UnreachableServiceError(RenateStagesError):
    """A cloud service that does not answer any more, while a job runs there."""

    exit_code = 1

    def __init__(self, service: str, job: str, minutes: float, reason: str) -> None:
        super().__init__(
            f"{service} has not answered for {minutes:.0f} minutes ({reason}). The job {job} goes "
            "on without us, and nothing is lost.\nTo mend it: when the network is back, run `dvc "
            "repro` again: it attaches to the job, or takes what it has made."
        )


class DetachedError(RenateStagesError):
    """The user left a job running."""

    exit_code = 130

    def __init__(self, job: str) -> None:
        super().__init__(
            f"left: the job {job} goes on. `dvc repro` attaches to it again, or takes what it has "
            f"made; `renate-stages remote stop {job}` ends it."
        )


class RemoteJobStoppedError(RenateStagesError):
    """A job that was ended before it had finished."""

    exit_code = 1

    def __init__(self, job: str, why: str, cure: str) -> None:
        super().__init__(f"the job {job} was ended before it had finished: {why}.\n{cure}")


class RemoteJobFailedError(RenateStagesError):
    """A stage that failed in its job.

    Args:
        job: Name of the job.
        reason: What the service says.
        lines: The last lines that the stage printed there, its traceback among them.
        exit_code: Of the stage there: 2 for a user's mistake.
        log: Where its whole log is.
    """

    def __init__(
        self, job: str, reason: str, lines: Sequence[str], exit_code: int, log: str
    ) -> None:
        self.exit_code = exit_code
        said = "\n".join(f"  | {line}" for line in lines)
        super().__init__(
            f"the job {job} failed: {reason}\n" + (f"{said}\n" if said else "") + f"Its log: {log}"
        )


class DamagedOutputError(RenateStagesError):
    """What a job says it has made is not what lies there."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"{url}: {problem}. Nothing here was changed.\nTo fix this: remove that file, and run "
            "`dvc repro` again, which runs the stage anew."
        )
