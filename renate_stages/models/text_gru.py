"""A recurrent network for texts (Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder
for Statistical Machine Translation", EMNLP 2014)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.models.feature_classifier import Heads, check_positive, check_share
from renate_stages.models.text_model import TextFeatures, TextModel, check_vocabulary


class TextGRU(TextModel):
    """Gated recurrent units that read the text forwards, and others that read it backwards.

    Takes the inputs of `TextCNN`. The features are the states after the last token of each direction. Padding
    at the end never changes an output, because a text is also read backwards from its own last token.
    The features of an empty text are 0.

    Args:
        vocab_size: Number of token ids, with 0 for padding and 1 for unknown tokens. `grow_inputs` raises it.
        num_outputs: Number of classes, or of values in a regression.
        embedding_size: Width of a token's vector.
        hidden_size: Width H of the state of each direction.
        num_layers: Number of layers of each direction, one on top of the other.
        bidirectional: Whether the text is also read backwards; then the model has 2 H features.
        dropout: Share of the features, and of the values between layers, set to zero in training, in [0, 1).
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
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
    ) -> None:
        name = "TextGRU"
        check_vocabulary(name, vocab_size, embedding_size)
        check_positive(name, hidden_size=hidden_size, num_layers=num_layers)
        check_share(name, dropout=dropout)
        directions = 2 if bidirectional else 1
        super().__init__(
            constructor_arguments={
                "vocab_size": vocab_size,
                "num_outputs": num_outputs,
                "embedding_size": embedding_size,
                "hidden_size": hidden_size,
                "num_layers": num_layers,
                "bidirectional": bidirectional,
                "dropout": dropout,
                "heads": heads,
            },
            features=_Features(
                vocab_size, embedding_size, hidden_size, num_layers, directions, dropout
            ),
            num_features=directions * hidden_size,
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
        hidden_size: int,
        num_layers: int,
        directions: int,
        dropout: float,
    ) -> None:
        super().__init__(vocab_size, embedding_size)
        between = dropout if num_layers > 1 else 0.0
        self.directions = nn.ModuleList(
            nn.GRU(embedding_size, hidden_size, num_layers, batch_first=True, dropout=between)
            for _ in range(directions)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Tensor:
        """Return (B, F)."""
        ids, is_token = self.tokens(x)
        places = torch.arange(ids.shape[1], device=ids.device)  # (T,)
        length = is_token.sum(dim=1, keepdim=True)  # (B, 1)
        backwards = torch.where(is_token, length - 1 - places, places)  # padding stays at the end
        is_last = (places == length - 1)[:, :, None]  # (B, T, 1)
        orders = ids, ids.gather(1, backwards)
        states = [
            # A sum over one place instead of `gather`, whose gradient may add in any order on a GPU.
            torch.where(is_last, direction(self.embedding(order))[0], 0).sum(dim=1)
            for direction, order in zip(self.directions, orders, strict=False)
        ]
        return self.dropout(torch.cat(states, dim=1))
