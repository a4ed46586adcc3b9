"""Errors about tasks: what targets and outputs mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from renate_stages.errors.base import RenateStagesError, did_you_mean, sentence


class UnknownTaskNameError(RenateStagesError):
    """`task` in params.yaml names no task."""

    def __init__(self, name: str, known: Iterable[str], reason: str = "") -> None:
        known = list(known)
        because = f" ({reason})" if reason else ""
        problem = sentence(
            f"params.yaml, task: unknown task '{name}'{because}{did_you_mean(name, known)}"
        )
        super().__init__(
            f"{problem}\nTo fix this: choose one of {', '.join(known)}, or package.module:Class "
            "of a subclass of renate_stages.tasks.task.Task."
        )


class AmbiguousTaskError(RenateStagesError):
    """`task: auto` cannot decide what the targets and outputs mean."""

    def __init__(self, outputs: str, targets: str, candidates: Sequence[str]) -> None:
        could = f" They could be {' or '.join(candidates)}." if candidates else ""
        super().__init__(
            f"params.yaml, task: auto cannot tell what targets of {targets} and outputs of {outputs} "
            f"mean.{could}\nTo fix this: set task in params.yaml (docs/tasks.md), change the targets "
            "or the model's outputs, or set task: custom and define loss_fn and metrics_fn."
        )


class TargetsError(RenateStagesError):
    """The targets are not what the task expects."""

    def __init__(
        self, task: str, found: str, expected: str, where: str, row: int | None = None
    ) -> None:
        at = where if row is None else f"row {row} of {where}"
        super().__init__(
            f"task {task}: found {found} in {at}; targets must be {expected}.\n"
            "To fix this: let the data module or a target transform return such targets, or set "
            "another task in params.yaml (docs/tasks.md)."
        )


class OutputsError(RenateStagesError):
    """The model's outputs are not what the task expects."""

    def __init__(self, task: str, found: str, expected: str) -> None:
        super().__init__(
            f"task {task}: the model of model_fn returned {found}; expected {expected}.\n"
            "To fix this: let the model return this tensor, or set another task in params.yaml "
            "(docs/tasks.md)."
        )


class ChangedTaskError(RenateStagesError):
    """An update names another task than the state that it starts from."""

    def __init__(self, found: str, parent: str) -> None:
        super().__init__(
            f"params.yaml, task: found {found}, but the parent's state was made for {parent}.\n"
            f"To fix this: set task: {parent} or auto, or start from the empty state."
        )


class TaskFunctionsError(RenateStagesError):
    """A task needs functions of the user that are not defined."""

    def __init__(self, task: str, missing: Iterable[str]) -> None:
        super().__init__(
            f"task {task} needs {' and '.join(missing)} in renate_config.py.\n"
            "To fix this: define them, or set another task in params.yaml (docs/tasks.md)."
        )


class LossReductionError(RenateStagesError):
    """The loss is not a mean over rows, so that its value depends on the size of batches."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"renate_config.py, loss_fn: {problem}\n"
            'To fix this: return one loss per row, such as with reduction="none".'
        )
