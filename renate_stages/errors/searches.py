"""What keeps a search for hyperparameters from finding any."""

from __future__ import annotations

from collections.abc import Iterable

from renate_stages.errors.base import RenateStagesError


class NoValidationDataError(RenateStagesError):
    """There is a space to search, and nothing to choose by."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"hyperparameters has a search space, and there is no validation data {where}to choose "
            "by.\nTo mend it: set data.validation_fraction above 0 in params.yaml, return a "
            "val_data in the data module of renate_config.py, or write constants."
        )


class NoFinishedTrialError(RenateStagesError):
    """No trial of a search has finished."""

    def __init__(self, trials: int, log: Iterable[str]) -> None:
        shown = "\n".join(f"  | {line}" for line in log) or "  | (it is empty)"
        super().__init__(
            f"none of {trials} trial(s) has finished, so nothing can be chosen. The end of the "
            f"first one's log:\n{shown}\nTo mend it: correct what it says, or raise the budget "
            "(tuning.max_time, tuning.max_epochs_total in params.yaml)."
        )


class TrialMistakeError(RenateStagesError):
    """The first trial met a mistake that the next ones would meet again."""

    def __init__(self, message: str) -> None:
        super().__init__(f"the first trial: {message}")


class ForkServerError(RenateStagesError):
    """The process that trials are forked from cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the process that trials are forked from: {reason}\nTo mend it: correct this, or set "
            "tuning.processes: fresh in params.yaml, which starts each trial anew."
        )
