"""A small transformer for texts, without pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import LongTextsError
from renate_stages.models.feature_classifier import Heads, check_positive, check_share
from renate_stages.models.text_model import TextFeatures, TextModel, check_vocabulary
from renate_stages.models.transformer import TransformerBlock, check_transformer


class TextTransformer(TextModel):
    """Self-attention over the tokens and their positions, and the mean over the tokens of the text.

    Takes the inputs of `TextCNN`. Tokens do not attend to padding, and the mean leaves it out, so that padding
    never changes an output. The features of an empty text are 0. Blocks have layer norm before attention
    and before the feed-forward network with GELU; positions are learned.

    Args:
        vocab_size: Number of token ids, with 0 for padding and 1 for unknown tokens. `grow_inputs` raises it.
        num_outputs: Number of classes, or of values in a regression.
        embedding_size: Width of a token's vector.
        num_blocks: Number of blocks, >= 1.
        num_heads: Number of attention heads, which divides `embedding_size`.
        hidden_size: Width of the feed-forward network; None: 4 times `embedding_size`.
        max_length: Number of tokens of a text that are read; those after them are ignored. `grow_inputs`
            refuses data whose texts may have more.
        dropout: Share of attention weights, hidden values and values that a block adds set to zero in
            training, in [0, 1).
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
        num_blocks: int = 2,
        num_heads: int = 4,
        hidden_size: int | None = None,
        max_length: int = 512,
        dropout: float = 0.1,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
    ) -> None:
        name = "TextTransformer"
        check_vocabulary(name, vocab_size, embedding_size)
        check_transformer(name, "embedding_size", embedding_size, num_blocks, num_heads)
        check_positive(name, max_length=max_length)
        check_share(name, dropout=dropout)
        if hidden_size is not None:
            check_positive(name, hidden_size=hidden_size)
        blocks = [
            TransformerBlock(
                embedding_size,
                num_heads,
                hidden_size or 4 * embedding_size,
                gated=False,
                attention_dropout=dropout,
                hidden_dropout=dropout,
                residual_dropout=dropout,
            )
            for _ in range(num_blocks)
        ]
        super().__init__(
            constructor_arguments={
                "vocab_size": vocab_size,
                "num_outputs": num_outputs,
                "embedding_size": embedding_size,
                "num_blocks": num_blocks,
                "num_heads": num_heads,
                "hidden_size": hidden_size,
                "max_length": max_length,
                "dropout": dropout,
                "heads": heads,
            },
            features=_Features(vocab_size, embedding_size, max_length, dropout, blocks),
            num_features=embedding_size,
            num_outputs=num_outputs,
            heads=heads,
            random_features=random_features,
            nearest_mean=nearest_mean,
        )

    def grow_inputs(self, sizes: Mapping[str, Any]) -> None:
        """Give the embedding rows for all token ids.

        Args:
            sizes: `vocab_size` and `max_length`; each may be absent.

        Raises:
            LongTextsError: If texts may have more tokens than the model has positions.
        """
        own, found = len(self.features.positions), sizes.get("max_length")  # type: ignore[arg-type]
        if found is not None and found > own:
            raise LongTextsError(type(self).__name__, own, found)
        super().grow_inputs(sizes)


class _Features(TextFeatures):
    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        max_length: int,
        dropout: float,
        blocks: list[TransformerBlock],
    ) -> None:
        super().__init__(vocab_size, embedding_size)
        self.positions = nn.Parameter(torch.randn(max_length, embedding_size))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embedding_size)

    def forward(self, x: Any) -> Tensor:
        """Return (B, E)."""
        ids, is_token = (each[:, : len(self.positions)] for each in self.tokens(x))
        places = torch.arange(ids.shape[1], device=ids.device)
        vectors = self.dropout(self.embedding(ids) + self.positions[: ids.shape[1]])  # (B, T, E)
        # Attention needs a key, so an empty text attends to its first padding, which has no effect.
        keys = is_token | (places == 0)
        for block in self.blocks:
            vectors = block(vectors, keys)
        counted = is_token[:, :, None].to(vectors.dtype)
        return (self.norm(vectors) * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
