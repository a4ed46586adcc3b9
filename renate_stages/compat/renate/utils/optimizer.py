"""`renate.utils.optimizer`: an optimizer without its parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn, optim

from renate_stages.compat.renate import defaults
from renate_stages.errors import InvalidHyperparameterError


def create_partial_optimizer(
    optimizer: Literal["Adam", "SGD"] = defaults.OPTIMIZER,
    lr: float = defaults.LEARNING_RATE,
    momentum: float = defaults.MOMENTUM,
    weight_decay: float = defaults.WEIGHT_DECAY,
) -> Callable[[list[nn.Parameter]], optim.Optimizer]:
    """Return a function that builds an optimizer from parameters, for `optimizer_fn`.

    Args:
        optimizer: `Adam` or `SGD`.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.

    Raises:
        InvalidHyperparameterError: If there is no such optimizer.
    """
    if optimizer == "SGD":
        return partial(optim.SGD, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if optimizer == "Adam":
        return partial(optim.Adam, lr=lr, weight_decay=weight_decay)
    raise InvalidHyperparameterError("optimizer", optimizer, "Adam or SGD")
