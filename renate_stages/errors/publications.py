"""Errors when results are published to MLflow."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class PublishError(RenateStagesError):
    """Publishing to MLflow failed."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(
            f"This is not, or only partly, published to MLflow ({store}): {problem}.\nTo fix this: "
            "check that MLFLOW_TRACKING_URI names the right store and that the store responds, "
            "then run this again; nothing is added twice."
        )


class OtherUpdateError(RenateStagesError):
    """The results in `state/` do not belong to the open update."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(
            f"state/ belongs to update {found}, but params.yaml to update {expected}; only one "
            "complete update can be published.\nTo fix this: run `dvc repro`, then this command "
            f"again; to publish update {found}, first run `git checkout update-{found} && dvc "
            "checkout`."
        )
