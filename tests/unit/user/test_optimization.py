"""Default and custom optimizers, losses and schedules, compared with those of PyTorch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from renate_stages import errors
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig


def user(**functions) -> UserConfig:
    return UserConfig(Path("renate_config.py"), functions)


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3))]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ({}, torch.optim.SGD, {"lr": 0.05, "momentum": 0.0, "weight_decay": 0.0}),
        (
            {"learning_rate": 1, "momentum": 0.9, "weight_decay": 0.1},
            torch.optim.SGD,
            {"lr": 1, "momentum": 0.9, "weight_decay": 0.1},
        ),
        ({"optimizer": "Adam", "momentum": 0.9}, torch.optim.Adam, {"lr": 0.05}),
        ({"optimizer": "AdamW", "weight_decay": 0.2}, torch.optim.AdamW, {"weight_decay": 0.2}),
    ],
)
def test_default_optimizer_is_built_from_hyperparameters(values, kind, expected):
    build = optimization.optimizer_fn(user(), {**values, "batch_size": 8})
    optimizer = build(parameters())
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("optimizer", "SDG", "one of Adam, AdamW, SGD"),
        ("learning_rate", 0, "a number > 0"),
        ("learning_rate", -0.1, "a number > 0"),
        ("learning_rate", "0.1", "a number > 0"),
        ("learning_rate", True, "a number > 0"),
        ("learning_rate", None, "a number > 0"),
        ("learning_rate", float("nan"), "a number > 0"),
        ("momentum", 1, r"a number in \[0, 1\)"),
        ("momentum", -0.1, r"a number in \[0, 1\)"),
        ("weight_decay", -1e-9, "a number >= 0"),
        ("weight_decay", float("nan"), "a number >= 0"),
    ],
)
def test_optimizer_hyperparameter_outside_its_range_is_refused(name, value, allowed):
    with pytest.raises(
        errors.InvalidHyperparameterError, match=rf"hyperparameters\.{name}: expected {allowed}"
    ):
        optimization.optimizer_fn(user(), {name: value})


def test_custom_optimizer_and_loss_replace_the_defaults():
    def optimizer_fn(rate: float):
        return partial(torch.optim.Adagrad, lr=rate)

    def loss_fn():
        return nn.L1Loss()

    own = user(optimizer_fn=optimizer_fn, loss_fn=loss_fn)
    optimizer = optimization.optimizer_fn(own, {"rate": 0.3, "learning_rate": -1})(parameters())
    assert type(optimizer) is torch.optim.Adagrad and optimizer.param_groups[0]["lr"] == 0.3
    assert isinstance(optimization.loss_fn(own, {}), nn.L1Loss)
    assert optimization.loss_fn(user(), {}) is None


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_custom_schedule_is_a_pair_of_scheduler_and_interval(interval):
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    given = user(lr_scheduler_fn=lambda: (schedule, interval))
    assert optimization.lr_scheduler_fn(given, {}) == (schedule, interval)
    assert optimization.lr_scheduler_fn(user(), {}) is None


@pytest.mark.parametrize("returned", [3, (len,), (len, "batch"), [len, "step"], (len, "step", 1)])
def test_custom_schedule_that_is_not_a_valid_pair_is_refused(returned):
    with pytest.raises(errors.UserConfigError, match=r'a pair: .* "epoch" or "step"'):
        optimization.lr_scheduler_fn(user(lr_scheduler_fn=lambda: returned), {})
