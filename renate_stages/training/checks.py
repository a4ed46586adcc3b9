"""Check hyperparameters and trainer settings before data is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from renate_stages.errors import (
    UnknownHyperparameterError,
    UnsharedLearnerError,
)
from renate_stages.learners import registry
from renate_stages.learners.avalanche import catalog
from renate_stages.learners.base import hyperparameters_of
from renate_stages.params import Params, TrainerParams
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig

# Settings of `trainer` that a learner with its own training loop ignores.
PASSED_OVER = (
    "devices",
    "num_nodes",
    "accumulate_grad_batches",
    "compile",
    "prefetch",
    "data_on_device",
)


def check_hyperparameters(
    user: UserConfig, learner: str, hyperparameters: Mapping[str, Any]
) -> list[str]:
    """Refuse hyperparameters that no learner, no optimizer and no function of the user reads.

    Hyperparameters of other learners are accepted, so that you can compare learners by changing
    only `-S learner=NAME`.

    Returns:
        The names of those that only other learners read, sorted.

    Raises:
        UnknownHyperparameterError: If there are such hyperparameters; it lists all of them.
    """
    own = optimization.shared_hyperparameters(user)
    own |= set(hyperparameters_of(registry.learner_class(learner)))
    known = own | catalog.hyperparameters()
    for each in registry.classes():
        known |= set(hyperparameters_of(each))
    unknown = set(hyperparameters) - known
    if unknown:
        raise UnknownHyperparameterError(unknown, known, learner)
    return sorted(set(hyperparameters) - own)


def check_sharing(params: Params) -> None:
    """Refuse settings of `trainer` that a learner with its own training loop would ignore.

    Raises:
        UnsharedLearnerError: If there is such a setting; it names the first.
    """
    if registry.learner_class(params.learner).steps_itself:
        one = TrainerParams()
        for name in PASSED_OVER:
            found = getattr(params.trainer, name)
            if found != getattr(one, name):
                raise UnsharedLearnerError(params.learner, f"{name}: {str(found).lower()}")
