"""Check hyperparameters and trainer settings before data is read, and row weights before training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from renate_stages.data import StoredDataset
from renate_stages.errors import (
    InvalidHyperparameterError,
    InvalidParamsError,
    UnknownHyperparameterError,
    UnsharedLearnerError,
    UnweightedLearnerError,
)
from renate_stages.learners import registry
from renate_stages.learners.avalanche import catalog
from renate_stages.learners.base import Learner, hyperparameters_of
from renate_stages.learners.base.context import StartingPoint, TrainingFunctions, UpdateContext
from renate_stages.learners.hyperparameters import HYPERPARAMETERS
from renate_stages.memory import row_weights
from renate_stages.models import RenateWrapper
from renate_stages.params import Params, TrainerParams
from renate_stages.randomness import Generators
from renate_stages.tasks.classification import Classification
from renate_stages.tasks.row_loss import RowLoss
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
    known = own | catalog.hyperparameters() | HYPERPARAMETERS
    unknown = set(hyperparameters) - known
    if unknown:
        raise UnknownHyperparameterError(unknown, known, own, learner)
    return sorted(set(hyperparameters) - own)


def check_weights(learner: Learner, new: StoredDataset, memory: StoredDataset) -> None:
    """Check that a learner can use the weights of rows, if any rows have weights.

    Args:
        learner: The learner.
        new: The new training examples.
        memory: The remembered ones.

    Raises:
        UnweightedLearnerError: If it would ignore them.
        NoRowWeighsError: If all new examples have the weight 0.
    """
    if (new.is_weighted or memory.is_weighted) and learner.weights_rows is False:
        raise UnweightedLearnerError([type(learner).__name__])
    row_weights.check_weights(new.store, "the training data")


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


def check_values(params: Params, hyperparameters: Mapping[str, Any]) -> None:
    """Check the values of the learner's hyperparameters, by building it for a stand-in model.

    Raises:
        InvalidHyperparameterError: If a value is outside its range.
        InvalidParamsError: If the learner needs more epochs than `trainer.max_epochs`.
    """
    learner = registry.learner_class(params.learner)
    epochs = params.trainer.max_epochs
    if learner.min_epochs > (epochs if epochs is not None else 1):
        problem = f"trainer.max_epochs: {params.learner} divides the epochs into phases: set "
        raise InvalidParamsError("params.yaml", [f"{problem}{learner.min_epochs} or more"])
    functions = TrainingFunctions(RowLoss(Classification()), partial(torch.optim.SGD, lr=1.0))
    stand_in = RenateWrapper(nn.Linear(1, 1))
    context = UpdateContext(
        StartingPoint(stand_in, {}),
        functions,
        params.trainer,
        params.update.task_id,
        Generators(params.seed, params.update.number),
    )
    known = hyperparameters_of(learner)
    values = {name: each for name, each in hyperparameters.items() if name in known}
    try:
        learner(context, **values)
    except InvalidHyperparameterError:
        raise
    except Exception:  # noqa: BLE001 -- the learner may refuse the stand-in, which says nothing
        return
