"""Errors of data modules and of the processes that read their data."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


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
