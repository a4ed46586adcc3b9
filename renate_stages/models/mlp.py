"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import FeatureClassifier, Heads, check_positive

ACTIVATIONS = ("ELU", "GELU", "LeakyReLU", "Mish", "ReLU", "SELU", "SiLU", "Sigmoid", "Tanh")


class MLP(FeatureClassifier):
    """Fully connected layers on flattened inputs.

        MLP(num_inputs=28 * 28, num_outputs=10)(torch.rand(32, 1, 28, 28))  # (32, 10)

    Args:
        num_inputs: Values per example; inputs (B, ...) are flattened to (B, num_inputs), float.
        num_outputs: Number of classes, or of values in a regression.
        num_hidden_layers: Number of hidden layers, >= 0. Ignored if `hidden_size` is a list.
        hidden_size: Width of every hidden layer, or a tuple or list with the width of each layer.
        activation: Name of a class of `torch.nn`, one of `ACTIVATIONS`.
        dropout: Share of hidden values set to zero in training, in [0, 1).
        heads: One head for all tasks (`shared`) or one for each (`per_task`).
        random_features: Number of random features before a shared head; 0: none.
        nearest_mean: Whether a shared head predicts the nearest class mean; see `NearestMeanHead`.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        num_hidden_layers: int = 2,
        hidden_size: int | Sequence[int] = 128,
        activation: str = "ReLU",
        dropout: float = 0.0,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
    ) -> None:
        if isinstance(hidden_size, Sequence):
            widths = list(hidden_size)
        elif num_hidden_layers >= 0:
            widths = [hidden_size] * num_hidden_layers
        else:
            expected = "a whole number, at least 0"
            raise ModelArgumentError("MLP", "num_hidden_layers", num_hidden_layers, expected)
        check_positive("MLP", num_inputs=num_inputs)
        for width in widths:
            check_positive("MLP", hidden_size=width)
        if not 0 <= dropout < 1:
            raise ModelArgumentError("MLP", "dropout", dropout, "a number in [0, 1)")
        if activation not in ACTIVATIONS:
            expected = f"one of {', '.join(ACTIVATIONS)}"
            raise ModelArgumentError("MLP", "activation", activation, expected)

        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in zip([num_inputs, *widths], widths, strict=False):
            layers += [nn.Linear(fan_in, fan_out), getattr(nn, activation)()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(
            constructor_arguments={
                "num_inputs": num_inputs,
                "num_outputs": num_outputs,
                "num_hidden_layers": num_hidden_layers,
                "hidden_size": hidden_size,
                "activation": activation,
                "dropout": dropout,
                "heads": heads,
            },
            features=nn.Sequential(*layers),
            num_features=[num_inputs, *widths][-1],
            num_outputs=num_outputs,
            heads=heads,
            random_features=random_features,
            nearest_mean=nearest_mean,
        )

    def layers_to_distil(self) -> list[nn.Module]:
        kind = getattr(nn, self._constructor_arguments["activation"])
        return [layer for layer in self.features.children() if isinstance(layer, kind)]
