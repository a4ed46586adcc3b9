"""Optimizer, learning rate scheduler and loss of an update: the user's, or the defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import InvalidHyperparameterError, UserConfigError
from renate_stages.files.typed import is_number
from renate_stages.user.config import UserConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
}
INTERVALS = ("epoch", "step")


def default_optimizer(
    parameters: list[nn.Parameter],
    optimizer: str = "SGD",
    learning_rate: float = 0.05,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Build one of `OPTIMIZERS`; used if the user defines no `optimizer_fn`.

    Args:
        parameters: The parameters to train.
        optimizer: A name in `OPTIMIZERS`.
        learning_rate: > 0.
        momentum: In [0, 1); used by SGD only.
        weight_decay: >= 0.

    Raises:
        InvalidHyperparameterError: If a value is outside its range.
    """
    if optimizer not in OPTIMIZERS:
        raise InvalidHyperparameterError("optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")
    if not is_number(learning_rate) or learning_rate <= 0:
        raise InvalidHyperparameterError("learning_rate", learning_rate, "a number > 0")
    if not is_number(momentum) or not 0 <= momentum < 1:
        raise InvalidHyperparameterError("momentum", momentum, "a number in [0, 1)")
    if not is_number(weight_decay) or weight_decay < 0:
        raise InvalidHyperparameterError("weight_decay", weight_decay, "a number >= 0")
    arguments: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if optimizer == "SGD":
        arguments["momentum"] = momentum
    return OPTIMIZERS[optimizer](parameters, **arguments)


def optimizer_hyperparameters() -> list[str]:
    """Return the hyperparameters that the default optimizer reads."""
    return list(inspect.signature(default_optimizer).parameters)[1:]


def shared_hyperparameters(user: UserConfig) -> set[str]:
    """Return the hyperparameters that the optimizer and the user's functions read."""
    own = set(user.hyperparameters())
    if "data_module_fn" in user.functions and user.named.module is None:
        own |= {*user.arguments_of("data_module_fn")} - {"data_path", "seed"}
    return own if "optimizer_fn" in user.functions else own | set(optimizer_hyperparameters())


def optimizer_fn(
    user: UserConfig, hyperparameters: Mapping[str, Any]
) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Return a function that builds the optimizer: the result of `optimizer_fn`, or the default.

    Raises:
        InvalidHyperparameterError: If a value for the default optimizer is outside its range.
    """
    own = user.callable_of("optimizer_fn", hyperparameters)
    if own is not None:
        return own
    names = optimizer_hyperparameters()
    build = partial(default_optimizer, **{k: v for k, v in hyperparameters.items() if k in names})
    build([nn.Parameter(torch.zeros(1))])  # raises errors for wrong values before data is loaded
    return build


def lr_scheduler_fn(
    user: UserConfig, hyperparameters: Mapping[str, Any]
) -> tuple[Callable[[torch.optim.Optimizer], Any], str] | None:
    """Return the function that builds the user's scheduler and its interval, or None.

    Raises:
        UserConfigError: If `lr_scheduler_fn` does not return `(partial, "epoch" | "step")`.
    """
    own = user.optional("lr_scheduler_fn", hyperparameters)
    if own is None:
        return None
    if not (isinstance(own, tuple) and len(own) == 2 and callable(own[0]) and own[1] in INTERVALS):
        raise UserConfigError(
            user.path,
            f"lr_scheduler_fn returned {own!r}",
            'return a pair: a function that builds the scheduler from the optimizer, and "epoch" '
            'or "step"',
        )
    return own


def loss_fn(
    user: UserConfig, hyperparameters: Mapping[str, Any]
) -> Callable[[Any, Any], Tensor] | None:
    """Return the user's loss, or None for the task's default loss."""
    return user.callable_of("loss_fn", hyperparameters)
