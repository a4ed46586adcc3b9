"""Find the hidden units of a model that is a sequence of layers, with the weights after them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from renate_stages.errors import ModelMismatchError
from renate_stages.models import RenateModule
from renate_stages.models.feature_classifier import FeatureClassifier
from renate_stages.models.module import unwrap

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh),
)
PASSING = (  # keep units apart
    *(nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


@dataclass(frozen=True)
class Layer:
    """The units of one hidden layer.

    Args:
        incoming: The layer that computes them, with a row of weights for each.
        activation: The module that returns their outputs, with units in dimension 1.
        outgoing: The next layer with weights.
    """

    incoming: Any
    activation: nn.Module
    outgoing: Any

    @property
    def number(self) -> int:
        """Number of units, U."""
        return self.incoming.weight.shape[0]

    def outgoing_of(self, values: Tensor) -> Tensor:
        """Return a view of values of the outgoing weights, `(O, U, positions ...)`."""
        return values.view(values.shape[0], self.number, -1)

    def outgoing_sums(self) -> Tensor:
        """Return the sum of the absolute outgoing weights of each unit, `(U,)`."""
        return self.outgoing_of(self.outgoing.weight.detach()).float().abs().sum((0, 2))


def hidden_units(model: RenateModule, trained: Collection[int]) -> list[Layer]:
    """Return the hidden layers of a sequential model whose weights on both sides are trained.

    Args:
        model: A `RenateWrapper` of an `nn.Sequential`, or a `FeatureClassifier` with a sequence of
            features and one linear head, such as `MLP`. The layers are linear ones or convolutions
            without groups, activations, dropout, pooling and flatten.
        trained: `id` of each trained parameter.

    Raises:
        ModelMismatchError: If the model is not of this form, or no such layer is trained.
    """
    module = unwrap(model)
    parts = _sequence(module)
    found, incoming, activation = [], None, None
    for name, part in parts:
        if isinstance(part, WEIGHTED):
            if getattr(part, "groups", 1) != 1:
                _fail(module, f"its layer `{name}` is a convolution with groups")
            if incoming is not None and activation is None:
                _fail(module, f"there is no activation module before its layer `{name}`")
            if incoming is not None and activation is not None:
                if part.weight[0].numel() % incoming.weight.shape[0]:
                    _fail(module, f"its layer `{name}` does not take the units of the layer before")
                found.append(Layer(incoming, activation, part))
            incoming, activation = part, None
        elif isinstance(part, ACTIVATIONS):
            if activation is None:
                activation = part
        elif not isinstance(part, PASSING):
            _fail(module, f"its layer `{name}` is a {type(part).__name__}")
    layers = [layer for layer in found if _is_trained(layer, trained)]
    if not layers:
        _fail(module, "it has no hidden layer with trained weights before and after it")
    return layers


def _sequence(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the model's layers in their order, by name."""
    if isinstance(module, nn.Sequential):
        parts = _flat(module, "")
    else:
        body, head = getattr(module, "features", None), getattr(module, "head", None)
        is_plain = getattr(type(module), "forward", None) is FeatureClassifier.forward
        if not (is_plain and isinstance(body, nn.Sequential) and type(head) is nn.Linear):
            _fail(module, "it is not a FeatureClassifier with a sequence and one linear head")
        assert isinstance(body, nn.Sequential) and isinstance(head, nn.Linear)
        parts = [*_flat(body, "features."), ("head", head)]
    weighted = [id(part) for _, part in parts if isinstance(part, (*WEIGHTED, *ACTIVATIONS))]
    if len(set(weighted)) < len(weighted):
        _fail(module, "it uses a layer twice")
    return parts


def _flat(sequence: nn.Sequential, prefix: str) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for number, part in enumerate(sequence):
        name = f"{prefix}{number}"
        parts += _flat(part, f"{name}.") if type(part) is nn.Sequential else [(name, part)]
    return parts


def _is_trained(layer: Layer, trained: Collection[int]) -> bool:
    needed = (layer.incoming.weight, layer.incoming.bias, layer.outgoing.weight)
    return all(id(each) in trained for each in needed if each is not None)


def _fail(module: nn.Module, reason: str) -> None:
    raise ModelMismatchError(
        "continual backprop needs a sequence of linear and convolutional layers with activations, "
        f"which {type(module).__name__} is not: {reason}",
        "set hyperparameters.replacement_rate to 0, or use renate_stages.models.MLP or a "
        "RenateWrapper of an nn.Sequential",
    )
