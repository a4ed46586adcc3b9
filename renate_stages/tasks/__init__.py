"""Tasks: what targets and outputs mean. `task: NAME` in params.yaml chooses one of `TASKS`.

Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from renate_stages.errors import UnknownTaskNameError

if TYPE_CHECKING:
    from renate_stages.tasks.task import Task

AUTO = "auto"  # decides by the first batch; see `tasks.detect`
TASKS = {
    "classification": "renate_stages.tasks.classification:Classification",
    "binary": "renate_stages.tasks.binary:Binary",
    "multilabel": "renate_stages.tasks.multilabel:Multilabel",
    "regression": "renate_stages.tasks.regression:Regression",
    "ranking": "renate_stages.tasks.ranking:Ranking",
    "ranking_pairwise": "renate_stages.tasks.ranking:PairwiseRanking",
    "tokens": "renate_stages.tasks.tokens:Tokens",
    "custom": "renate_stages.tasks.custom:Custom",
}
MEASURED = {
    "classification": ("accuracy",),
    "binary": ("accuracy",),
    "multilabel": ("accuracy", "exact_match"),
    "regression": ("mae", "mse"),
    "ranking": ("ndcg",),
    "ranking_pairwise": ("ndcg",),
    "tokens": ("accuracy",),
}
"""The metrics that each task measures without `metrics_fn`, besides the loss."""
LOWER_IS_BETTER = ("loss", "mae", "mse")
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_known(name: str) -> bool:
    """Return whether a name is `auto`, one of `TASKS`, or has the form `package.module:Class`."""
    return name == AUTO or name in TASKS or _DOTTED.fullmatch(name) is not None


def may_have_labels(name: str | None) -> bool:
    """Return whether integer targets may be class labels; without torch.

    Args:
        name: Name of a task, as in `params.yaml`; None or `auto` if it is not known yet.
    """
    return name not in TASKS or name in ("classification", "binary")


def named(name: str) -> Task | None:
    """Return the task of a name, or None for `auto`; errors are those of `make_task`."""
    return None if name == AUTO else make_task(name)


def make_task(name: str) -> Task:
    """Build a task.

    Args:
        name: A name in `TASKS`, or `package.module:Class` of a subclass of `Task`.

    Raises:
        UnknownTaskNameError: If there is no such task.
    """
    from renate_stages.tasks.task import Task

    target = TASKS.get(name, name if _DOTTED.fullmatch(name) else None)
    if target is None:
        raise UnknownTaskNameError(name, (AUTO, *TASKS))
    module, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise UnknownTaskNameError(name, (AUTO, *TASKS), str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UnknownTaskNameError(name, (AUTO, *TASKS), "it is not a subclass of Task")
    return found()
