"""Errors of training in several processes: how they were started and what they cannot share."""

from __future__ import annotations

from pathlib import Path

from renate_stages.errors.base import RenateStagesError


class ProcessCountError(RenateStagesError):
    """The number of training processes differs from what `trainer` asks for."""

    def __init__(self, devices: int, nodes: int, found: int) -> None:
        nnodes = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        how = "--standalone" if nodes == 1 else nnodes
        super().__init__(
            f"params.yaml, trainer: devices {devices} and num_nodes {nodes} need {devices * nodes} "
            f"processes, one per device; found {found}.\n"
            "To fix this: on one node, use `dvc repro`, `renate-stages train` or run_training_job, "
            "which start all processes. On several nodes, or for your own program, run `torchrun "
            f"{how} --nproc-per-node {devices} ...` on each node; for this stage, write `-m "
            "renate_stages train` in place of the dots."
        )


class UnsharedLearnerError(RenateStagesError):
    """A learner runs its own training steps, which Lightning cannot distribute or change."""

    def __init__(self, learner: str, setting: str) -> None:
        super().__init__(
            f"params.yaml, learner: {learner} runs its own training steps and would ignore "
            f"trainer.{setting}.\n"
            "To fix this: train it on one device without that setting, or choose a learner of "
            "renate-stages, such as ER or DER++ (`renate-stages learners` lists them)."
        )


class LostProcessError(RenateStagesError):
    """A training process was killed from outside, for example because memory ran out."""

    def __init__(self, rank: int, signal: str) -> None:
        super().__init__(
            f"process {rank} of the training was killed by {signal}, and the others were stopped.\n"
            "To fix this: if memory ran out, lower hyperparameters.batch_size or trainer.devices; "
            "then run the command again: it continues from its last checkpoint."
        )


class StageProcessError(RenateStagesError):
    """A stage that runs in its own process failed; the process has printed the reason."""

    def __init__(self, stage: str, code: int, kept: str | Path | None) -> None:
        state = f" The new state is complete in {kept}." if kept is not None else ""
        super().__init__(
            f"The stage {stage} ended with exit code {code}.{state}\n"
            "To fix this: read the error that it printed above."
        )


class SharedTrainingError(RenateStagesError):
    """A training in several processes failed; one of them has printed the reason."""

    def __init__(self, code: int) -> None:
        super().__init__(
            f"the training processes ended with exit code {code}.\n"
            "To fix this: read the error that one of them printed above."
        )
