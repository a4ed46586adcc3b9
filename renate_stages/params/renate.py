"""Settings of Renate 0.5 in terms of ours: its defaults, and the names of its hyperparameters.

Renate's `batch_size` counts new and replayed examples. Of the weights of a loss, its `alpha` and
`beta` mean something else for each updater.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from renate_stages.errors import InvalidHyperparameterError

BLOCKS: dict[str, dict[str, Any]] = {
    "data": {"validation_fraction": 0.0},
    "trainer": {"accelerator": "auto", "deterministic": False, "keep": "auto"},
    "tuning": {"scheduler": "random"},
}
"""Renate's defaults that differ from ours, by block of `params.yaml`."""

OPTIMIZER = {"optimizer": "Adam", "learning_rate": 3e-4}
"""Renate's optimizer if the config defines no `optimizer_fn`."""

BATCH_SIZE, BATCH_MEMORY_FRAC = 32, 0.5
PATIENCE = 3  # epochs, of Lightning's EarlyStopping, which Renate cannot change
BOOLEANS = (
    *("early_stopping", "loss_normalization", "mask_unused_classes", "normalize"),
    *("pod_normalize", "reset"),
)
ARGUMENTS = (
    *("accelerator", "chunk_id", "config_file", "deterministic_trainer", "devices"),
    *("gradient_clip_algorithm", "gradient_clip_val", "input_state_url", "max_epochs", "metric"),
    *("mode", "output_state_url", "precision", "prepare_data", "seed", "strategy", "task_id"),
    *("updater", "working_directory"),
)
"""Keys of a `config_space` that Renate replaces by arguments of `run_training_job`."""


@dataclass(frozen=True)
class Updater:
    """One of Renate's updaters.

    Args:
        learner: The name of our learner.
        defaults: Renate's defaults for hyperparameters, under our names.
        names: Our names of hyperparameters, by Renate's names, if they differ.
        splits_batch: Whether `batch_memory_frac` of a batch are replayed examples.
        phases: Number of trainings, each of which takes `max_epochs` epochs in Renate.
    """

    learner: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    splits_batch: bool = True
    phases: int = 1


_MEMORY = {"memory_size": 32}
_ONLINE = {
    **_MEMORY,
    "memory_update": "online",
    "replay_forward": "separate",
    "loss_weight": 1.0,
    "loss_normalization": True,
}
_TEACHERS = {
    "stable_decay": 0.999,
    "plastic_decay": 0.999,
    "stable_probability": 0.7,
    "plastic_probability": 0.9,
}
_OF_TEACHERS = {
    "stable_model_update_weight": "stable_decay",
    "plastic_model_update_weight": "plastic_decay",
    "stable_model_update_probability": "stable_probability",
    "plastic_model_update_probability": "plastic_probability",
}
_ALL_DATA = {"budget": "compute_matched"}

UPDATERS = {
    "ER": Updater("ER", {**_ONLINE, "replay_weight": 1.0}, {"alpha": "replay_weight"}),
    "DER": Updater("DER++", {**_ONLINE, "alpha": 1.0, "beta": 1.0}),
    "POD-ER": Updater(
        "POD-ER",
        {
            **_ONLINE,
            "replay_weight": 0.0,
            "alpha": 1.0,
            "distillation_type": "spatial",
            "normalize": True,
        },
    ),
    "CLS-ER": Updater(
        "CLS-ER",
        {**_ONLINE, "replay_weight": 0.5, "consistency_weight": 0.1, **_TEACHERS},
        {"alpha": "replay_weight", "beta": "consistency_weight", **_OF_TEACHERS},
    ),
    "Super-ER": Updater(
        "Super-ER",
        {
            **_ONLINE,
            "der_alpha": 1.0,
            "replay_weight": 1.0,
            "sp_shrink_factor": 0.95,
            "sp_sigma": 0.001,
            "consistency_weight": 0.1,
            **_TEACHERS,
            "pod_alpha": 1.0,
            "pod_distillation_type": "spatial",
            "pod_normalize": True,
        },
        {
            "der_beta": "replay_weight",
            "cls_alpha": "consistency_weight",
            **{f"cls_{theirs}": ours for theirs, ours in _OF_TEACHERS.items()},
        },
    ),
    "Offline-ER": Updater("Offline-ER", _MEMORY),
    "GDumb": Updater("GDumb", {**_MEMORY, **_ALL_DATA}, splits_batch=False),
    "Joint": Updater("Joint", _ALL_DATA, splits_batch=False),
    "FineTuning": Updater("FineTuning", splits_batch=False),
    "RD": Updater("RD", _MEMORY, splits_batch=False, phases=2),
    "Avalanche-ER": Updater("Avalanche-ER", _MEMORY),
    "Avalanche-EWC": Updater("Avalanche-EWC", {"ewc_lambda": 0.4}, splits_batch=False),
    "Avalanche-LwF": Updater(
        "Avalanche-LwF", {"alpha": 1.0, "temperature": 2.0}, splits_batch=False
    ),
    "Avalanche-iCaRL": Updater("Avalanche-iCaRL", _MEMORY),
}
"""Renate's updaters that exist here."""


@dataclass(frozen=True)
class Translation:
    """Renate's settings in terms of ours.

    Args:
        learner: The name of our learner.
        hyperparameters: Our hyperparameters, with Renate's defaults.
        filled: Names of the hyperparameters that were not given.
        trainer: Settings for the block `trainer`.
        notes: One line about each setting that is named differently here or has no effect.
    """

    learner: Any
    hyperparameters: dict[str, Any]
    filled: tuple[str, ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def translated(
    updater: Any, given: Mapping[str, Any], arguments: Mapping[str, Any] | None = None
) -> Translation:
    """Translate an updater and its hyperparameters.

    A learner that Renate does not have gets none of Renate's defaults.

    Args:
        updater: Renate's name of an updater, or the name of one of our learners.
        given: Renate's hyperparameters: constants, and spaces in the notation of `params.yaml`.
        arguments: Arguments of `run_training_job`, which replace keys of that name in `given`.

    Raises:
        InvalidHyperparameterError: If a value is outside its range, or cannot be translated.
    """
    ours, notes = _without_arguments(given, arguments or {})
    ours = {name: _value(name, each) for name, each in ours.items()}
    trainer = _early_stopping(ours)
    gamma = ours.pop("ema_memory_update_gamma", 1.0)
    if gamma != 1:
        allowed = "1: stored outputs are not averaged (Renate 0.5.2 itself stops with a KeyError)"
        raise InvalidHyperparameterError("ema_memory_update_gamma", gamma, allowed)
    known = UPDATERS.get(updater) if isinstance(updater, str) else None
    if known is None:
        return Translation(updater, split_batch(ours), (), trainer, tuple(notes))
    if known.learner != updater:
        notes.append(f"Renate's {updater} also replays labels: it is {known.learner} here")
    ours = _renamed(ours, known.names)
    if not known.splits_batch and "batch_memory_frac" in ours:
        del ours["batch_memory_frac"]
        notes.append(f"batch_memory_frac has no effect on {updater}, which draws no replay batch")
    elif known.splits_batch and "memory_batch_size" not in ours:
        ours = _split_as_in_renate(ours)
    epochs = (arguments or {}).get("max_epochs")
    if known.phases > 1 and isinstance(epochs, int):
        trainer |= {"max_epochs": known.phases * epochs}
        notes.append(f"{updater} has {known.phases} phases of {epochs} epochs, as in Renate")
    values = {"batch_size": BATCH_SIZE, **known.defaults, **ours}
    theirs = {name: name for name in values} | {ours: name for name, ours in known.names.items()}
    filled = tuple(n for n in values if n not in given and theirs[n] not in given)
    return Translation(known.learner, values, filled, trainer, tuple(notes))


def _early_stopping(ours: dict[str, Any]) -> dict[str, Any]:
    """Remove `early_stopping` from hyperparameters; return the equivalent setting of `trainer`."""
    stops = ours.pop("early_stopping", False)
    if not isinstance(stops, bool):
        raise InvalidHyperparameterError("early_stopping", stops, "True or False")
    return {"patience": PATIENCE} if stops else {}


def _renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    for theirs, ours in names.items():
        if theirs in given and ours in given:
            allowed = f"this or {theirs}, Renate's name of it, but not both"
            raise InvalidHyperparameterError(ours, given[ours], allowed)
    return {names.get(name, name): each for name, each in given.items()}


def _split_as_in_renate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Split a batch, by default into halves, with at most as many replayed examples as are kept."""
    ours = {"batch_size": BATCH_SIZE, "batch_memory_frac": BATCH_MEMORY_FRAC, **_MEMORY, **given}
    batch, part, kept = (ours[n] for n in ("batch_size", "batch_memory_frac", "memory_size"))
    split = split_batch(ours)
    if int(part * batch) < 1:
        allowed = "a share that gives at least one replayed example; without replay: FineTuning"
        raise InvalidHyperparameterError("batch_memory_frac", part, allowed)
    if isinstance(kept, int) and 0 < kept < split["memory_batch_size"]:
        split |= {"memory_batch_size": kept, "batch_size": batch - kept}
    return split


def split_batch(given: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `batch_memory_frac`, a share of `batch_size`, by `memory_batch_size`.

    Raises:
        InvalidHyperparameterError: If the share is not in [0, 1) or `batch_size` is searched.
    """
    ours = dict(given)
    if "batch_memory_frac" not in ours:
        return ours
    part, batch = ours.pop("batch_memory_frac"), ours.get("batch_size", BATCH_SIZE)
    if not isinstance(part, int | float) or not 0 <= part < 1:
        raise InvalidHyperparameterError("batch_memory_frac", part, "a share in [0, 1)")
    if not isinstance(batch, int):
        allowed = "an integer with batch_memory_frac; or search memory_batch_size instead"
        raise InvalidHyperparameterError("batch_size", batch, allowed)
    ours["memory_batch_size"] = max(1, int(part * batch))
    ours["batch_size"] = max(1, batch - int(part * batch))
    return ours


def _without_arguments(
    given: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Leave out keys that arguments replace; return a note about each with another value."""
    replaced = set(ARGUMENTS) - ({"chunk_id"} if arguments.get("chunk_id") is None else set())
    notes = [
        f"config_space sets {name} to {each!r}; the argument {name} is used instead"
        for name, each in given.items()
        if name in replaced and each != arguments.get(name)
    ]
    return {name: each for name, each in given.items() if name not in replaced}, notes


def _value(name: str, value: Any) -> Any:
    """Return a value that Renate passes as text in its own type."""
    if value == "None":
        return None
    if name in BOOLEANS:
        known = {"True": True, "False": False, 1: True, 0: False}
        return known.get(value, value) if isinstance(value, str | int) else value
    return value
