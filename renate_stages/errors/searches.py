"""What keeps a search for hyperparameters from finding any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from renate_stages.errors.base import RenateStagesError

MOST_SHOWN = 10  # trials that a message lists


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


class ObjectiveNotFiniteError(RenateStagesError):
    """What is tuned for is not a finite number in any trial of a search."""

    def __init__(self, metric: str, values: Mapping[int, float]) -> None:
        listed = [f"trial {trial}: {value}" for trial, value in values.items()]
        shown = ", ".join(listed[:MOST_SHOWN]) + (", ..." if len(listed) > MOST_SHOWN else "")
        super().__init__(
            f"{metric} on the validation data is not a finite number in any of {len(values)} "
            f"trial(s), so nothing can be chosen ({shown}).\nTo fix this: name another metric in "
            "params.yaml (tuning.metric, or evaluation.metric) or correct metrics_fn if this one is "
            "undefined on the validation data, as for a class without examples; lower the upper end "
            "of learning_rate if the trainings diverge."
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
