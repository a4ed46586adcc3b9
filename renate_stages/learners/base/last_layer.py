"""Find the linear layer that computes a model's outputs, for learners that change its rows."""

from __future__ import annotations

from torch import nn

from renate_stages.errors import ModelMismatchError
from renate_stages.models import RenateModule
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
    module = unwrap(model)
    name = output_layer(module)
    layer = module.get_submodule(name) if name is not None else None
    if not isinstance(layer, nn.Linear):
        kind = type(layer).__name__ if layer is not None else "none"
        raise ModelMismatchError(
            f"{purpose} of the last linear layer, and that of {type(module).__name__} is {kind}",
            "end the model in a linear layer, name it with `output_layer`, or choose another learner",
        )
    return layer
