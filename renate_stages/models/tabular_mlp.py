"""A multi-layer perceptron for tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import Heads, check_positive, check_share
from renate_stages.models.table_model import (
    TableFeatures,
    TableModel,
    check_columns,
)

WIDEST = 50  # largest width that is chosen for an embedding
NORMALIZATIONS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class TabularMLP(TableModel):
    """Fully connected layers on numeric columns, and on embedded categorical and text columns.

        model = TabularMLP(num_numeric=2, cardinalities=[5, 9], num_outputs=3)
        model({"numeric": ..., "missing": ..., "categorical": ...})  # (B, 3)

    Takes a dict of `numeric` (B, n) float, scaled, 0 where a value is missing; `missing` (B, n) float, 1
    where it is; `categorical` (B, c) int64, codes; `text`, a tuple with the inputs of `TextCNN` for each
    text column. Parts without columns may be absent. Codes from the number of rows of their embedding on
    are read as 0, `unknown`, whose vector is zero. A text is the mean of its words' vectors, and zero
    without words, so that padding never changes an output.

    The weights of `missing` in the first hidden layer start as zeros. So a column that was never missing in
    training counts as its mean where it is missing later, and not as something random.

    Args:
        num_numeric: Number n of numeric columns.
        cardinalities: Number of codes of each categorical column, including those of unknown and missing
            values. `grow_inputs` raises it.
        num_outputs: Number of classes, or of values in a regression.
        hidden_size: Width of every hidden layer, or a tuple or list with the width of each layer.
        num_hidden_layers: Number of hidden layers, >= 0. Ignored if `hidden_size` is a list.
        embedding_size: Width of the embedding of every categorical column; None: half of the column's
            cardinality, rounded up, at most 50.
        dropout: Share of hidden values set to zero in training, in [0, 1).
        normalization: `layer` or `batch` norm after each linear layer; None: none. The running statistics
            of batch norm follow the newest data, so prefer `layer` if data shifts.
        heads: One head for all tasks (`shared`) or one for each (`per_task`).
        random_features: Number of random features before a shared head; 0: none.
        nearest_mean: Whether a shared head predicts the nearest class mean; see `NearestMeanHead`.
        vocab_sizes: Number of token ids of each text column, with 0 for padding and 1 for unknown words.
            `grow_inputs` raises it.
        word_size: Width of a word's vector.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        num_outputs: int,
        hidden_size: int | Sequence[int] = 128,
        num_hidden_layers: int = 2,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        normalization: Literal["batch", "layer"] | None = None,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
        vocab_sizes: Sequence[int] = (),
        word_size: int = 64,
    ) -> None:
        name = "TabularMLP"
        check_columns(name, num_numeric, cardinalities, vocab_sizes)
        check_positive(name, word_size=word_size)
        check_share(name, dropout=dropout)
        if embedding_size is not None:
            check_positive(name, embedding_size=embedding_size)
        if normalization is not None and normalization not in NORMALIZATIONS:
            raise ModelArgumentError(name, "normalization", normalization, "batch, layer or None")
        widths = _widths(name, hidden_size, num_hidden_layers)
        sizes = [embedding_size or min(WIDEST, (each + 1) // 2) for each in cardinalities]
        columns = num_numeric, cardinalities, sizes, vocab_sizes, word_size
        features = _Features(columns, widths, dropout, normalization)
        super().__init__(
            constructor_arguments={
                "num_numeric": num_numeric,
                "cardinalities": list(cardinalities),
                "num_outputs": num_outputs,
                "hidden_size": hidden_size,
                "num_hidden_layers": num_hidden_layers,
                "embedding_size": embedding_size,
                "dropout": dropout,
                "normalization": normalization,
                "heads": heads,
                **(
                    {"vocab_sizes": list(vocab_sizes), "word_size": word_size}
                    if vocab_sizes
                    else {}
                ),
            },
            features=features,
            num_features=[features.num_inputs, *widths][-1],
            num_outputs=num_outputs,
            heads=heads,
            random_features=random_features,
            nearest_mean=nearest_mean,
        )

    def layers_to_distil(self) -> list[nn.Module]:
        layers = self.features.get_submodule("layers").children()
        return [layer for layer in layers if isinstance(layer, nn.ReLU)]


class _Features(TableFeatures):
    def __init__(
        self,
        columns: tuple[int, Sequence[int], Sequence[int], Sequence[int], int],
        widths: Sequence[int],
        dropout: float,
        normalization: str | None,
    ) -> None:
        super().__init__(*columns)
        num_numeric, _, sizes, vocab_sizes, word_size = columns
        self.num_inputs = 2 * num_numeric + sum(sizes) + word_size * len(vocab_sizes)
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip([self.num_inputs, *widths], widths, strict=False):
            layers.append(nn.Linear(fan_in, fan_out))
            if normalization is not None:
                layers.append(NORMALIZATIONS[normalization](fan_out))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers)
        if layers:
            with torch.no_grad():
                layers[0].weight[:, num_numeric : 2 * num_numeric] = 0  # type: ignore[index]

    def forward(self, x: Any) -> Tensor:
        """Return (B, F)."""
        parts = list(self.numeric(x)) if self.num_numeric else []
        if len(self.embeddings):
            parts += self.vectors(x)
        if len(self.words):
            parts += self.texts(x)
        return self.layers(torch.cat(parts, dim=1))


def _widths(model: str, hidden_size: int | Sequence[int], num_hidden_layers: int) -> list[int]:
    """Return the width of each hidden layer.

    Raises:
        ModelArgumentError: If a number is outside its range.
    """
    if isinstance(hidden_size, Sequence):
        widths = list(hidden_size)
    elif isinstance(num_hidden_layers, int) and num_hidden_layers >= 0:
        widths = [hidden_size] * num_hidden_layers
    else:
        expected = "a whole number, at least 0"
        raise ModelArgumentError(model, "num_hidden_layers", num_hidden_layers, expected)
    for width in widths:
        check_positive(model, hidden_size=width)
    return widths
