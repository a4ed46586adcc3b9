"""Configure Lightning's Trainer from `params.yaml`, and write its checkpoints."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from renate_stages.errors import InvalidParamsError
from renate_stages.learners.base import Learner
from renate_stages.params import TrainerParams


class LocalCheckpoints(TorchCheckpointIO):
    """Writes checkpoints directly to a local file.

    Lightning's own writer first makes the whole file in memory. It also imports the packages of all
    installed cloud storages, for half a second, to find out that the path is in none of them.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with Path(path).open("wb") as stream:  # by name, the file's name would be in its content
            torch.save(checkpoint, stream)


_accepted: set[str] = set()  # settings that this process has checked


def check_trainer(params: TrainerParams) -> None:
    """Check that Lightning accepts the settings on this machine, once for each in a process.

    Args:
        params: The block `trainer` of `params.yaml`.

    Raises:
        InvalidParamsError: See `make_trainer`.
    """
    settings = params.model_dump_json(exclude={"max_epochs", "max_steps", "compile"})
    if settings not in _accepted:
        with quiet():
            make_trainer(params)
        _accepted.add(settings)


def make_trainer(
    params: TrainerParams, learner: Learner | None = None, callbacks: Sequence[Callback] = ()
) -> Trainer:
    """Return a trainer; without a learner, this only checks that the settings are accepted.

    Args:
        params: The block `trainer` of `params.yaml`.
        learner: The learner to train.
        callbacks: Further callbacks, called in this order.

    Raises:
        InvalidParamsError: If this machine does not have the accelerator, or Lightning does not
            support the precision.
    """
    most = learner.max_epochs if learner is not None else None
    max_epochs = most or params.max_epochs
    # Lightning accepts these settings only with automatic optimization.
    clips = learner is None or learner.automatic_optimization
    on_terminal = sys.stderr.isatty()
    try:
        return Trainer(
            accelerator=params.accelerator,
            devices=params.devices,
            num_nodes=params.num_nodes,
            strategy=_strategy(params, learner),
            precision=params.precision,
            min_epochs=0,
            max_epochs=max_epochs if max_epochs is not None else -1,
            accumulate_grad_batches=params.accumulate_grad_batches if clips else 1,
            gradient_clip_val=params.gradient_clip_val if clips else None,
            gradient_clip_algorithm=params.gradient_clip_algorithm if clips else None,
            deterministic=params.deterministic,
            callbacks=[*callbacks, *([TQDMProgressBar()] if on_terminal else [])],
            enable_progress_bar=on_terminal,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=False,
            plugins=[LocalCheckpoints()],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        given = f"accelerator {params.accelerator!r} and precision {params.precision!r}"
        raise InvalidParamsError(
            "params.yaml", [f"trainer: Lightning refuses {given} on this machine: {error}"]
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages about its settings, which a user of stages cannot act on."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\.")
        try:
            yield
        finally:
            logger.setLevel(level)


def _strategy(params: TrainerParams, learner: Learner | None) -> Strategy | str:
    """Return the Lightning strategy by which processes share a training.

    Buffers are not broadcast at each step, because they are already equal and a learner may have as
    many buffers as weights.
    """
    if params.num_processes == 1:
        return "auto"
    unused = params.strategy == "ddp_find_unused_parameters_true"
    if learner is not None:  # a model with per-task parameters does not use those of other tasks
        trained = set(map(id, learner.trained_model.get_params(learner.context.task_id)))
        weights = [each for each in learner.parameters() if each.requires_grad]
        unused |= any(id(each) not in trained for each in weights)
    return DDPStrategy(find_unused_parameters=unused, broadcast_buffers=False)
