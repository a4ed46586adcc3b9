"""Registry of the reference models by name, which imports a model only when it is needed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from renate_stages.errors import ModelArgumentsError, ModelStateError, UnknownModelError

if TYPE_CHECKING:
    from renate_stages.models.module import RenateModule

MODELS = {
    "FTTransformer": "renate_stages.models.ft_transformer:FTTransformer",
    "MLP": "renate_stages.models.mlp:MLP",
    "ResNet18": "renate_stages.models.resnet:ResNet18",
    "SmallCNN": "renate_stages.models.cnn:SmallCNN",
    "TabularMLP": "renate_stages.models.tabular_mlp:TabularMLP",
    "TextCNN": "renate_stages.models.text_cnn:TextCNN",
    "TextGRU": "renate_stages.models.text_gru:TextGRU",
    "TextTransformer": "renate_stages.models.text_transformer:TextTransformer",
}
"""Names of the models, with module and class."""


def check_name(name: str) -> None:
    """Check that there is a model of a name; imports nothing heavy.

    Raises:
        UnknownModelError: If no model has this name.
    """
    if name not in MODELS:
        raise UnknownModelError(name, MODELS)


def model_class(name: str) -> type[RenateModule]:
    """Return the class of a model.

    Raises:
        UnknownModelError: If there is no model of this name.
    """
    check_name(name)
    module, _, attribute = MODELS[name].partition(":")
    return getattr(import_module(module), attribute)


def arguments_of(name: str) -> dict[str, inspect.Parameter]:
    """Return the arguments of a model's constructor by name, with their defaults.

    Raises:
        UnknownModelError: If there is no model of this name.
    """
    return dict(inspect.signature(model_class(name)).parameters)


def build(name: str, arguments: Mapping[str, Any]) -> RenateModule:
    """Return a new model.

    Args:
        name: A key of `MODELS`.
        arguments: Arguments of its constructor, by name.

    Raises:
        UnknownModelError: If there is no model of this name.
        ModelArgumentsError: If it does not take an argument, or one is missing.
        ModelArgumentError: If an argument is outside its range.
    """
    known = arguments_of(name)
    needed = [key for key, each in known.items() if each.default is each.empty]
    missing = [key for key in needed if key not in arguments]
    unknown = [key for key in arguments if key not in known]
    if missing or unknown:
        raise ModelArgumentsError(name, missing, unknown, known)
    return model_class(name)(**arguments)


def restore(name: str, path: str, arguments: Mapping[str, Any]) -> RenateModule:
    """Return a model with stored weights, built with the arguments that it was built with at first.

    Args:
        name: A key of `MODELS`.
        path: A file in torch's format with the state dict of a model of this name.
        arguments: Arguments that are given now; they must build the same weights.

    Raises:
        UnknownModelError: If there is no model of this name.
        ModelStateError: If the weights are those of another model.
    """
    import torch

    from renate_stages.models.extra_state import EXTRA_STATE

    state = torch.load(path, weights_only=True)
    extra = state.get(EXTRA_STATE)
    if not isinstance(extra, dict) or "constructor_arguments" not in extra:
        what = "the stored weights do not say with which arguments the model was built."
        raise ModelStateError(name, what, f"use the state dict of a {name}, or define model_fn")
    built = extra["constructor_arguments"]
    model = build(name, {**built, **arguments})
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # PyTorch's message lists the weights
        changed = [
            f"{key} was {built[key]!r} and is {value!r}"
            for key, value in arguments.items()
            if key in built and built[key] != value
        ]
        what = f"{'; '.join(changed) or 'the architecture changed'}.\n{error}"
        cure = "restore these hyperparameters; a stored model keeps its architecture"
        raise ModelStateError(name, what, cure) from error
    return model
