"""Errors of the machine: disk or memory is full. The command ends with exit code 1."""

from __future__ import annotations

import errno

from renate_stages.errors.base import RenateStagesError


class FullDiskError(RenateStagesError):
    """The disk is full or has failed."""

    exit_code = 1

    def __init__(self, reason: OSError, interrupted: str | None) -> None:
        what = "the disk has failed" if reason.errno == errno.EIO else "no more data can be written"
        left = (
            "All files and folders written so far are complete.\nTo fix this: free some space, "
            "then run the command again."
        )
        if interrupted is not None:
            left = (
                f"`{interrupted}` has not finished.\nTo fix this: free some space, then run "
                "`renate-stages resolve`, which undoes or completes it."
            )
        super().__init__(f"{what}: {reason}\n{left}")


class OutOfMemoryError(RenateStagesError):
    """The machine does not have enough memory."""

    exit_code = 1

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"there is not enough memory: {reason}\nTo fix this: lower the values in params.yaml "
            "that need most memory (batch_size, memory_batch_size, evaluation.batch_size, "
            "shift.max_rows, tuning.n_workers, the sizes of your model), or use a machine with "
            "more memory."
        )
