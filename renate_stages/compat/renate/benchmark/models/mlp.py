"""`renate.benchmark.models.mlp`: a multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from renate_stages.compat.renate.benchmark.models.base import RenateBenchmarkingModule
from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import Heads, check_positive
from renate_stages.models.mlp import ACTIVATIONS


class MultiLayerPerceptron(RenateBenchmarkingModule):
    """Fully connected layers on flattened inputs.

    As in Renate, there is one layer more than `num_hidden_layers` before the head.

    Args:
        num_inputs: Values per example; inputs are flattened.
        num_outputs: Number of outputs.
        num_hidden_layers: Number of hidden layers between the first one and the head, >= 0.
        hidden_size: Width of all layers, or a list with `num_hidden_layers + 1` widths.
        activation: Name of a class of `torch.nn`.
        batch_normalization: Whether a batch norm follows each activation.
        prediction_strategy: Must be None.
        add_icarl_class_means: See `RenateBenchmarkingModule`.
        heads: See `RenateBenchmarkingModule`.
        nearest_mean: Set by the learner iCaRL.
        random_features: Set by the learner RanPAC.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        num_hidden_layers: int,
        hidden_size: int | Sequence[int],
        activation: str = "ReLU",
        batch_normalization: bool = False,
        prediction_strategy: object = None,
        add_icarl_class_means: bool = True,
        heads: Heads = "per_task",
        nearest_mean: bool = False,
        random_features: int = 0,
    ) -> None:
        name = type(self).__name__
        layers = num_hidden_layers + 1
        widths = [hidden_size] * layers if isinstance(hidden_size, int) else [*hidden_size]
        if len(widths) != layers or not widths:
            expected = f"a width, or num_hidden_layers + 1 = {layers} widths"
            raise ModelArgumentError(name, "hidden_size", hidden_size, expected)
        if activation not in ACTIVATIONS:
            expected = f"one of {', '.join(ACTIVATIONS)}"
            raise ModelArgumentError(name, "activation", activation, expected)
        check_positive(name, num_inputs=num_inputs)
        features: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in zip([num_inputs, *widths], widths, strict=False):
            check_positive(name, hidden_size=fan_out)
            features += [nn.Linear(fan_in, fan_out), getattr(nn, activation)()]
            features += [nn.BatchNorm1d(fan_out)] if batch_normalization else []
        super().__init__(
            widths[-1],
            num_outputs,
            {
                "num_inputs": num_inputs,
                "num_hidden_layers": num_hidden_layers,
                "hidden_size": hidden_size if isinstance(hidden_size, int) else [*hidden_size],
                "activation": activation,
                "batch_normalization": batch_normalization,
            },
            prediction_strategy,
            add_icarl_class_means,
            heads,
            nearest_mean,
            random_features,
        )
        self.features = nn.Sequential(*features)

    def layers_to_distil(self) -> list[nn.Module]:
        kind = getattr(nn, self._constructor_arguments["activation"])
        return [layer for layer in self.features.children() if isinstance(layer, kind)]


RenateMLP = MultiLayerPerceptron
