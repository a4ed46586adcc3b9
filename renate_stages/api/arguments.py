"""Let error messages name the arguments of `run_training_job` instead of keys in `params.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from renate_stages.errors import RenateStagesError

KEYS = {
    "data.arguments.chunk_id": "chunk_id",
    "evaluation.metric": "metric",
    "evaluation.mode": "mode",
    "hyperparameters": "config_space",
    "learner": "updater",
    "trainer.accelerator": "accelerator",
    "trainer.deterministic": "deterministic_trainer",
    "trainer.devices": "devices",
    "trainer.gradient_clip_val": "gradient_clip_val",
    "trainer.max_epochs": "max_epochs",
    "trainer.gradient_clip_algorithm": "gradient_clip_algorithm",
    "trainer.precision": "precision",
    "trainer.strategy": "strategy",
    "tuning.max_time": "max_time",
    "tuning.max_trials": "max_num_trials_started",
    "tuning.n_workers": "n_workers",
    "tuning.scheduler_arguments": "scheduler_kwargs",
    "tuning.scheduler": "scheduler",
    "update.task_id": "task_id",
}
_DOTTED = re.compile(r"\b(" + "|".join(re.escape(key) for key in KEYS if "." in key) + r")\b")
_PLACE = re.compile(r"(?<![\w/])params\.yaml, (\w+)")  # begins a message
_LISTED = re.compile(r"(?m)^  - (learner|hyperparameters)\b")  # begins a problem of several
_IN_LIST = re.compile(r"(?<![\w/])params\.yaml has (?=\d+ problem)")
_IN = re.compile(r"(?<![\w/])(in|of) params\.yaml\b")
_SPACE = re.compile(r"\bhyperparameters\.(?=\w)")


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Translate the messages of errors that leave a block."""
    try:
        yield
    except RenateStagesError as error:
        error.args = tuple(
            translated(each) if isinstance(each, str) else each for each in error.args
        )
        raise


def translated(message: str) -> str:
    """Return a message with the arguments of `run_training_job` in place of keys."""
    message = _DOTTED.sub(lambda found: KEYS[found[1]], message)
    message = _PLACE.sub(lambda found: f"run_training_job, {KEYS.get(found[1], found[1])}", message)
    message = _LISTED.sub(lambda found: f"  - {KEYS[found[1]]}", message)
    message = _IN_LIST.sub("the arguments of run_training_job have ", message)
    message = _IN.sub("in the arguments of run_training_job", message)
    return _SPACE.sub("config_space.", message)
