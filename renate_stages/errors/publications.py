"""Results that cannot be published to MLflow."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class PublishError(RenateStagesError):
    """MLflow did not take what was to be published."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(
            f"This is not, or not fully, published to MLflow ({store}): {problem}.\nTo mend it: "
            "look whether MLFLOW_TRACKING_URI names the store you mean and whether it answers, "
            "then do this again: what is there already is not added twice."
        )


class OtherUpdateError(RenateStagesError):
    """The results at hand are not of the update that is open."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(
            f"state/ is of update {found}, and params.yaml of update {expected}: what is published "
            f"is one update as a whole.\nTo mend it: `dvc repro`, then this again; for update "
            f"{found}: `git checkout update-{found} && dvc checkout` first."
        )
