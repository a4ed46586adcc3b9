"""Errors of hyperparameter searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from renate_stages.errors.base import RenateStagesError
from renate_stages.errors.wording import counted

MOST_SHOWN = 10  # trials to list in a message


class NoValidationDataError(RenateStagesError):
    """There is a search space, but no validation data to compare trials on."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"hyperparameters has a search space, but there is no validation data {where}to "
            "compare trials on.\nTo fix this: set data.validation_fraction above 0 in "
            "params.yaml, return val_data from the data module of renate_config.py, or write "
            "constants."
        )


class NoFinishedTrialError(RenateStagesError):
    """No trial of a search has reported an epoch."""

    def __init__(self, trials: int, log: Iterable[str]) -> None:
        shown = "\n".join(f"  | {line}" for line in log) or "  | (it is empty)"
        super().__init__(
            f"none of {counted(trials, 'trial')} has finished an epoch, so tune cannot choose "
            f"values. The end of the first trial's log:\n{shown}\nTo fix this: correct the error in "
            "the log, or raise the budget (tuning.max_time, tuning.max_epochs_total in params.yaml)."
        )


class ObjectiveNotFiniteError(RenateStagesError):
    """The metric of a search is not a finite number in any trial."""

    def __init__(self, metric: str, values: Mapping[int, float]) -> None:
        listed = [f"trial {trial}: {value}" for trial, value in values.items()]
        shown = ", ".join(listed[:MOST_SHOWN]) + (", ..." if len(listed) > MOST_SHOWN else "")
        super().__init__(
            f"{metric} on the validation data is not a finite number in any of "
            f"{counted(len(values), 'trial')}, so tune cannot choose values ({shown}).\n"
            "To fix this: if the metric is undefined on the validation data, for example for a class "
            "without examples, choose another one in params.yaml (tuning.metric, or evaluation.metric) or correct "
            "metrics_fn; if training diverges, lower the upper end of learning_rate."
        )


class TrialMistakeError(RenateStagesError):
    """The first trial failed with an error that all other trials would repeat."""

    def __init__(self, message: str) -> None:
        super().__init__(f"the first trial: {message}")


class ForkServerError(RenateStagesError):
    """The process that trials are forked from has failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the process that trials are forked from failed: {reason}\nTo fix this: correct the "
            "cause, or set tuning.processes: fresh in params.yaml, which starts a new process for "
            "each trial."
        )
