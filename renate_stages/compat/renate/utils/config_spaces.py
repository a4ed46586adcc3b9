"""`renate.utils.config_spaces`: Renate's search spaces, with its names of hyperparameters."""

from __future__ import annotations

import copy
from typing import Any

from renate_stages.params import default_spaces, renate

_GRADIENT = {
    "optimizer": "SGD",
    "momentum": {"choice": [0.0, 0.9, 0.99]},
    "weight_decay": {"loguniform": [1e-6, 1e-2]},
    "learning_rate": {"loguniform": [0.001, 0.5]},
    "batch_size": 64,
    "max_epochs": 50,
}
_REPLAY = {**_GRADIENT, "batch_memory_frac": 0.5, "memory_size": 1000}
_WEIGHT = {"uniform": [0.0, 1.0]}
_SPACES: dict[str, dict[str, Any]] = {
    "ER": {**_REPLAY, "alpha": 0.5, "loss_normalization": 0, "loss_weight": 0.5},
    "DER": {
        **_REPLAY,
        "alpha": _WEIGHT,
        "beta": _WEIGHT,
        "loss_normalization": 0,
        "loss_weight": 1.0,
    },
    "CLS-ER": _REPLAY,
    "POD-ER": _REPLAY,
    "Super-ER": {
        **_REPLAY,
        "der_alpha": _WEIGHT,
        "der_beta": _WEIGHT,
        "sp_shrink_factor": {"choice": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]},
        "sp_sigma": {"choice": [0.0, 1e-5, 1e-4, 1e-3, 1e-2]},
        "cls_alpha": {"choice": [round(0.05 * step, 2) for step in range(21)]},
        "cls_stable_model_update_weight": 0.999,
        "cls_plastic_model_update_weight": 0.999,
        "cls_stable_model_update_probability": {"uniform": [0.01, 0.49]},
        "cls_plastic_model_update_probability": {"uniform": [0.5, 1.0]},
        "loss_normalization": 1,
    },
    "Offline-ER": {**_REPLAY, "loss_weight_new_data": {"choice": [0.25, 0.5, 0.75]}},
    "GDumb": {**_GRADIENT, "memory_size": 1000},
    "RD": {**_GRADIENT, "memory_size": 1000},
    "Joint": _GRADIENT,
    "FineTuning": _GRADIENT,
}


def config_space(updater: str) -> dict[str, Any]:
    """Return a copy of an updater's search space in Renate, to be changed and searched.

    Ranges are in the notation of `params.yaml`, such as `{"uniform": [0, 1]}`; you may replace them
    by Syne Tune's domains. A learner that Renate does not have gets its default space here.

    Args:
        updater: Name of an updater or learner, in any case.

    Raises:
        UnknownLearnerError: If there is no such learner.
    """
    names = {name.upper(): name for name in _SPACES} | {"OFFLINEER": "Offline-ER"}
    name = names.get(updater.upper())
    if name is None or default_spaces.registry.problem_of(renate.UPDATERS[name].learner):
        return default_spaces.config_space(updater)
    return copy.deepcopy({"updater": name, **_SPACES[name]})
