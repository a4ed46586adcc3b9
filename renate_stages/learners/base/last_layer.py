"""Find the layer that computes a model's outputs, for learners that use its rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from renate_stages.errors import ModelMismatchError
from renate_stages.models import RenateModule
from renate_stages.models.features import backbone_of, features_of
from renate_stages.models.growth import output_layer
from renate_stages.models.module import unwrap


def last_linear_layer(model: RenateModule, purpose: str) -> nn.Linear:
    """Return the linear layer that computes a model's outputs.

    Args:
        model: The model.
        purpose: What the learner does with the rows, for the message, such as "WA scales the rows".

    Raises:
        ModelMismatchError: If the last layer is another than a linear one.
    """
    layer = _last_layer(model)
    if not isinstance(layer, nn.Linear):
        kind = type(layer).__name__ if layer is not None else "none"
        raise ModelMismatchError(
            f"{purpose} of the last linear layer, and that of {type(unwrap(model)).__name__} is {kind}",
            "end the model in a linear layer, name it with `output_layer`, or choose another learner",
        )
    return layer


def class_rows(model: RenateModule, learner: str) -> Tensor:
    """Return the weight of a model's last layer, `(K, F)`: a row for each class.

    Args:
        model: The model.
        learner: Name of the learner that compares features with the rows, for the message.

    Raises:
        ModelMismatchError: If the layer has no such weight.
    """
    layer = _last_layer(model)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ModelMismatchError(
            f"{learner} compares features with the rows of the last layer's weight (K, F), and "
            f"{type(layer).__name__} of {type(unwrap(model)).__name__} has no such weight",
            "end the model in a linear layer, name it with `output_layer`, or choose another learner",
        )
    return weight


def row_parameters(model: RenateModule, learner: str) -> list[Tensor]:
    """Return weight `(K, F)` and, if there is one, bias `(K,)` of a model's last layer.

    Args:
        model: The model.
        learner: As in `class_rows`.

    Raises:
        ModelMismatchError: If the layer has no such weight.
    """
    bias = getattr(_last_layer(model), "bias", None)
    return [class_rows(model, learner), *([bias] if isinstance(bias, Tensor) else [])]


def check_rows(model: RenateModule, learner: str, inputs: Any, task_id: str) -> None:
    """Check that a model's features and the rows of its last layer can be compared.

    Args:
        model: The model.
        learner: As in `class_rows`.
        inputs: A batch on the CPU; None checks only that the model has features and rows.
        task_id: Task whose parameters are used.

    Raises:
        ModelMismatchError: If they cannot.
    """
    backbone_of(model)
    width = class_rows(model, learner).shape[1]
    if inputs is None:
        return
    features = features_of(model, inputs, task_id).shape[1]
    if features != width:
        raise ModelMismatchError(
            f"{learner} compares the outputs of `features`, {features} numbers, with the rows of the "
            f"last layer, {width} numbers",
            "let the last layer take the outputs of `features`, or choose another learner",
        )


def _last_layer(model: RenateModule) -> Any:
    module = unwrap(model)
    name = output_layer(module)
    return None if name is None else module.get_submodule(name)
