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

# What of `trainer` a learner that takes its steps itself knows nothing of.
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
) -> None:
    """Refuse hyperparameters that no learner, no optimizer and no function of the user reads.

    Those of other learners pass, so that learners can be compared by `-S learner=NAME` alone.

    Raises:
        UnknownHyperparameterError: With every such name.
    """
    known = optimization.shared_hyperparameters(user) | catalog.hyperparameters()
    for each in (*registry.classes(), registry.learner_class(learner)):
        known |= set(hyperparameters_of(each))
    unknown = set(hyperparameters) - known
    if unknown:
        raise UnknownHyperparameterError(unknown, known, learner)


def check_sharing(params: Params) -> None:
    """Refuse what of `trainer` a learner that takes its steps itself would pass over.

    Raises:
        UnsharedLearnerError: With the first of it.
    """
    if registry.learner_class(params.learner).steps_itself:
        one = TrainerParams()
        for name in PASSED_OVER:
            found = getattr(params.trainer, name)
            if found != getattr(one, name):
                raise UnsharedLearnerError(params.learner, f"{name}: {str(found).lower()}")
