"""A machine that has run out of something. A command that meets one ends with exit code 1."""

from __future__ import annotations

import errno

from renate_stages.errors.base import RenateStagesError


class FullDiskError(RenateStagesError):
    """The disk is full, or fails."""

    exit_code = 1

    def __init__(self, reason: OSError, interrupted: str | None) -> None:
        what = "the disk fails" if reason.errno == errno.EIO else "nothing more can be written"
        left = (
            "Every file and folder that was written is whole.\nTo fix this: make room, and run the "
            "command again."
        )
        if interrupted is not None:
            left = (
                f"`{interrupted}` is half done.\nTo fix this: make room, then run `renate-stages "
                "resolve`, which takes it back or completes it."
            )
        super().__init__(f"{what}: {reason}\n{left}")


class OutOfMemoryError(RenateStagesError):
    """There is not as much memory as the work needs."""

    exit_code = 1

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"there is not enough memory: {reason}\nTo fix this: lower what takes most of it in "
            "params.yaml (batch_size, memory_batch_size, evaluation.batch_size, shift.max_rows, the "
            "sizes that model_fn reads, tuning.n_workers), or use a machine with more memory."
        )
