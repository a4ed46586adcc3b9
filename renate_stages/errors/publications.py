"""Errors of publishing results to MLflow."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class PublishError(RenateStagesError):
    """Publishing to MLflow failed."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(
            f"Publishing to MLflow ({store}) failed: {problem}. Some results may be published "
            "already.\nTo fix this: check that MLFLOW_TRACKING_URI is correct and that the server "
            "or database responds, then run the command again; it adds only what is missing."
        )


class OtherUpdateError(RenateStagesError):
    """The results in `state/` do not belong to the open update."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(
            f"state/ belongs to update {found}, but params.yaml to update {expected}, so there is "
            f"no complete update to publish.\nTo fix this: to publish update {expected}, first run "
            f"`dvc repro`; to publish update {found}, first run `git checkout update-{found} && "
            "dvc checkout`."
        )
