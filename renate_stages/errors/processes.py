"""Trainings that several processes share: who starts them, and what cannot be shared."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class ProcessCountError(RenateStagesError):
    """`trainer` asks for another number of processes than there are."""

    def __init__(self, devices: int, nodes: int, found: int) -> None:
        nnodes = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        how = "--standalone" if nodes == 1 else nnodes
        super().__init__(
            f"params.yaml, trainer: devices {devices} and num_nodes {nodes} are {devices * nodes} "
            f"processes, one a device; found {found}.\n"
            "To mend it: on one node `dvc repro` or `renate-stages train` starts them all, and "
            "run_training_job likewise; anything else is started on each node by `torchrun "
            f"{how} --nproc-per-node {devices} ...`, for this stage with `-m renate_stages train`."
        )


class UnsharedLearnerError(RenateStagesError):
    """A learner that takes its steps itself, so that Lightning can neither share nor change them."""

    def __init__(self, learner: str, setting: str) -> None:
        super().__init__(
            f"params.yaml, learner: {learner} takes its steps itself, and would pass over "
            f"trainer.{setting}.\n"
            "To mend it: train it on one device without that setting, or take a learner of ours, "
            "such as ER or DER++ (`renate-stages learners` lists them)."
        )


class LostProcessError(RenateStagesError):
    """A process of a training was ended from outside, such as for want of memory."""

    def __init__(self, rank: int, signal: str) -> None:
        super().__init__(
            f"process {rank} of the training was ended by {signal}, and all others with it.\n"
            "To mend it: where that was for want of memory, lower hyperparameters.batch_size or "
            "trainer.devices; then run it again: it goes on from its last checkpoint."
        )


class SharedTrainingError(RenateStagesError):
    """A training that several processes shared has failed; one of them has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(
            f"the processes that shared the training ended with exit code {code}.\n"
            "To mend it: see what one of them printed above."
        )
