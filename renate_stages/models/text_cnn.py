"""A convolutional network for texts (Kim, "Convolutional Neural Networks for Sentence Classification",
EMNLP 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import Heads, check_positive, check_share
from renate_stages.models.text_model import TextFeatures, TextModel, check_vocabulary


class TextCNN(TextModel):
    """Convolutions of several widths over the tokens, and the largest value of each filter over the text.

        c_i = relu(w * x_{i-h/2 : i+h/2} + b),  z = max over tokens i of c_i        (eqs. 2 and 3)

    Takes a dict of `input_ids` (B, T) int64 and `attention_mask` (B, T), 1 for tokens and 0 for padding at
    the end, so that padding never changes an output. A filter is centred at each token, and beyond the
    text's ends it sees zeros; in the paper it stays inside the text. So texts shorter than a filter work
    too. The features of an empty text are 0. Ids from the vocabulary's size on are read as 1, `unknown`.

    Args:
        vocab_size: Number of token ids, with 0 for padding and 1 for unknown tokens. `grow_inputs` raises it.
        num_outputs: Number of classes, or of values in a regression.
        embedding_size: Width of a token's vector.
        num_filters: Filters of each width; the model has `num_filters * len(kernel_sizes)` features.
        kernel_sizes: Widths of the filters in tokens.
        dropout: Share of features set to zero in training, in [0, 1); 0.5 in the paper.
        heads: One head for all tasks (`shared`) or one for each (`per_task`).
        random_features: Number of random features before a shared head; 0: none.
        nearest_mean: Whether a shared head predicts the nearest class mean; see `NearestMeanHead`.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        vocab_size: int,
        num_outputs: int,
        embedding_size: int = 128,
        num_filters: int = 100,
        kernel_sizes: Sequence[int] = (3, 4, 5),
        dropout: float = 0.5,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
    ) -> None:
        name = "TextCNN"
        check_vocabulary(name, vocab_size, embedding_size)
        check_positive(name, num_filters=num_filters)
        check_share(name, dropout=dropout)
        if (
            isinstance(kernel_sizes, str)
            or not isinstance(kernel_sizes, Sequence)
            or not kernel_sizes
        ):
            raise ModelArgumentError(name, "kernel_sizes", kernel_sizes, "a list of widths")
        for each in kernel_sizes:
            check_positive(name, kernel_sizes=each)
        super().__init__(
            constructor_arguments={
                "vocab_size": vocab_size,
                "num_outputs": num_outputs,
                "embedding_size": embedding_size,
                "num_filters": num_filters,
                "kernel_sizes": list(kernel_sizes),
                "dropout": dropout,
                "heads": heads,
            },
            features=_Features(vocab_size, embedding_size, num_filters, kernel_sizes, dropout),
            num_features=num_filters * len(kernel_sizes),
            num_outputs=num_outputs,
            heads=heads,
            random_features=random_features,
            nearest_mean=nearest_mean,
        )


class _Features(TextFeatures):
    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        num_filters: int,
        kernel_sizes: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__(vocab_size, embedding_size)
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.ConstantPad1d(((size - 1) // 2, size // 2), 0.0),
                nn.Conv1d(embedding_size, num_filters, size),
                nn.ReLU(),
            )
            for size in kernel_sizes
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Tensor:
        """Return (B, F)."""
        ids, is_token = self.tokens(x)
        vectors = self.embedding(ids).transpose(1, 2)  # (B, E, T), 0 where padded
        counted = is_token[:, None, :].to(vectors.dtype)
        # Values are at least 0, so those at padding can count as 0 without changing the maximum.
        largest = [(each(vectors) * counted).amax(dim=2) for each in self.convolutions]
        return self.dropout(torch.cat(largest, dim=1))
