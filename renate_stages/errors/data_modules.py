"""Errors of data modules and of the processes that read their data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from renate_stages.errors.base import RenateStagesError, did_you_mean


class DrawingItemsError(RenateStagesError):
    """Items draw random numbers while several processes read them."""

    def __init__(self, split: str, first: int, last: int) -> None:
        super().__init__(
            f"{split} data, items {first} to {last}: reading them draws random numbers from a global "
            "generator, or seeds it. Several processes would draw them in another order than one.\n"
            "To fix this: set data.num_workers to 0 in params.yaml; or draw random numbers in "
            "train_transform of renate_config.py; or make a generator for each item, such as "
            "np.random.default_rng(index)."
        )


class UnreadableByWorkersError(RenateStagesError):
    """A worker process cannot read rows that the main process can read."""

    def __init__(self, split: str, first: int, last: int, problem: str) -> None:
        super().__init__(
            f"{split} data, items {first} to {last}: a worker process cannot read them, although the "
            f"main process may be able to: {problem}\n"
            "To fix this: set data.num_workers to 0 in params.yaml; or let the dataset open files in "
            "__getitem__, because a file that is open when workers start is shared by all."
        )


class InvalidModuleSettingError(RenateStagesError):
    """A setting of a data module is outside its range."""

    def __init__(self, module: str, name: str, found: object, expected: str) -> None:
        super().__init__(
            f"data module {module}: {name} is {found!r:.80}; expected {expected}.\n"
            f"To fix this: set {name} in data.module of params.yaml."
        )


class InvalidAugmentationError(RenateStagesError):
    """An entry of the setting `augment` of a data module is unknown or out of range."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"augment: {problem}.\nTo fix this: change augment in data.module of params.yaml."
        )


class MissingDataFileError(RenateStagesError):
    """A file or folder that a data module reads does not exist, or has another form."""

    def __init__(self, module: str, file: object, problem: str, cure: str) -> None:
        super().__init__(f"data module {module}: {file}: {problem}.\nTo fix this: {cure}.")


class MissingColumnError(RenateStagesError):
    """A table does not have a column that a setting of a data module names."""

    def __init__(
        self, module: str, name: str, column: str, file: str, known: Iterable[str]
    ) -> None:
        known = [*known]
        super().__init__(
            f"data module {module}: {file} has no column '{column}'{did_you_mean(column, known)} "
            f"(columns: {', '.join(known)}).\n"
            f"To fix this: change {name} in data.module of params.yaml, or rename the column."
        )


class AllRowsRejectedError(RenateStagesError):
    """A data module could read no row of a split.

    Args:
        module: Its name.
        rejected: The rows of the split, with `place` and `reason`.
        rows: Rows that it read, with those and with those of other splits.
    """

    def __init__(self, module: str, rejected: Sequence[Any], rows: int) -> None:
        self.rejected, self.rows = rejected, rows
        first = "; ".join(f"{each.place}: {each.reason}" for each in rejected[:10])
        problem = f"no row can be used: {first}" if rejected else "its files have no rows"
        super().__init__(
            f"data module {module}: {problem}.\n"
            "To fix this: repair the files, or check the settings in data.module of params.yaml."
        )


class UnusableRowError(RenateStagesError):
    """A raw row for a deployed model cannot be used."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(f"row {row}: {problem}.\nTo fix this: leave it out, or repair it.")
