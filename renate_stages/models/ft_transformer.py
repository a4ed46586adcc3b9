"""FT-Transformer for tables (Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data",
NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.models.feature_classifier import Heads, check_positive, check_share
from renate_stages.models.table_model import (
    TableFeatures,
    TableModel,
    check_columns,
)
from renate_stages.models.transformer import TransformerBlock, check_transformer


class FTTransformer(TableModel):
    """A transformer whose tokens are the columns of a table.

        T_j = b_j + x_j W_j + m_j V_j          for a numeric column, section 3.3 of the paper
        T_j = b_j + E_j[code]                  for a categorical column
        T_j = b_j + mean over words of E_j[id] for a text column, which the paper does not have
        y = head(relu(norm(T_CLS)))            after the blocks

    Takes the inputs of `TabularMLP`. A missing value has x_j = 0 and m_j = 1. The paper has no such
    vector V_j; here it starts as zeros, so that a column that was never missing in training counts as
    its mean where it is missing later. Blocks are those of the paper: layer norm before attention and
    before the feed-forward network, except before the first attention, and ReGLU.

    Args:
        num_numeric: Number n of numeric columns.
        cardinalities: Number of codes of each categorical column, including those of unknown and missing
            values. `grow_inputs` raises it.
        num_outputs: Number of classes, or of values in a regression.
        token_size: Width d of a token.
        num_blocks: Number of blocks, >= 1.
        num_heads: Number of attention heads, which divides `token_size`.
        hidden_size: Width of the feed-forward network after ReGLU; None: 4/3 of `token_size`.
        attention_dropout: Share of attention weights set to zero in training, in [0, 1).
        hidden_dropout: The same for the hidden values of the feed-forward network.
        residual_dropout: The same for what each part of a block adds.
        heads: One head for all tasks (`shared`) or one for each (`per_task`).
        random_features: Number of random features before a shared head; 0: none.
        nearest_mean: Whether a shared head predicts the nearest class mean; see `NearestMeanHead`.
        vocab_sizes: Number of token ids of each text column, as in `TabularMLP`.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        num_outputs: int,
        token_size: int = 192,
        num_blocks: int = 3,
        num_heads: int = 8,
        hidden_size: int | None = None,
        attention_dropout: float = 0.2,
        hidden_dropout: float = 0.1,
        residual_dropout: float = 0.0,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
        vocab_sizes: Sequence[int] = (),
    ) -> None:
        name = "FTTransformer"
        dropouts = {
            "attention_dropout": attention_dropout,
            "hidden_dropout": hidden_dropout,
            "residual_dropout": residual_dropout,
        }
        check_columns(name, num_numeric, cardinalities, vocab_sizes)
        check_transformer(name, "token_size", token_size, num_blocks, num_heads)
        check_share(name, **dropouts)
        if hidden_size is not None:
            check_positive(name, hidden_size=hidden_size)
        width = hidden_size or max(1, token_size * 4 // 3)
        blocks = [
            TransformerBlock(
                token_size, num_heads, width, gated=True, first_norm=number > 0, **dropouts
            )
            for number in range(num_blocks)
        ]
        super().__init__(
            constructor_arguments={
                "num_numeric": num_numeric,
                "cardinalities": list(cardinalities),
                "num_outputs": num_outputs,
                "token_size": token_size,
                "num_blocks": num_blocks,
                "num_heads": num_heads,
                "hidden_size": hidden_size,
                **dropouts,
                "heads": heads,
                **({"vocab_sizes": list(vocab_sizes)} if vocab_sizes else {}),
            },
            features=_Features(num_numeric, cardinalities, vocab_sizes, token_size, blocks),
            num_features=token_size,
            num_outputs=num_outputs,
            heads=heads,
            random_features=random_features,
            nearest_mean=nearest_mean,
        )

    def layers_to_distil(self) -> list[nn.Module]:
        return [
            self.features
        ]  # of the blocks' outputs, only that of the token CLS counts in the end


class _Features(TableFeatures):
    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        vocab_sizes: Sequence[int],
        size: int,
        blocks: Sequence[TransformerBlock],
    ) -> None:
        columns = num_numeric + len(cardinalities) + len(vocab_sizes)
        widths = [size] * len(cardinalities)
        super().__init__(num_numeric, cardinalities, widths, vocab_sizes, size)
        if num_numeric:
            self.weight = nn.Parameter(_uniform(num_numeric, size))  # W
            self.missing = nn.Parameter(torch.zeros(num_numeric, size))  # V
        self.bias = nn.Parameter(_uniform(columns, size))  # b, in the order of the parts
        self.cls = nn.Parameter(_uniform(1, size))
        for embedding in (*self.embeddings, *self.words):
            with torch.no_grad():
                embedding.weight[1:] = _uniform(len(embedding.weight) - 1, size)  # type: ignore
        self.blocks = nn.ModuleList(blocks)
        self.end = nn.Sequential(nn.LayerNorm(size), nn.ReLU())

    def forward(self, x: Any) -> Tensor:
        """Return (B, d)."""
        parts: list[Tensor] = []
        if self.num_numeric:
            numeric, missing = self.numeric(x)
            parts.append(numeric[:, :, None] * self.weight + missing[:, :, None] * self.missing)
        if len(self.embeddings):
            parts.append(torch.stack(self.vectors(x), dim=1))
        if len(self.words):
            parts.append(torch.stack(self.texts(x), dim=1))
        columns = torch.cat(parts, dim=1) + self.bias  # (B, n + c + t, d)
        cls = self.cls.expand(columns.shape[0], -1, -1)
        tokens = torch.cat([cls, columns], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.end(tokens[:, 0])


def _uniform(rows: int, size: int) -> Tensor:
    """Return rows drawn from U(-1 / sqrt(d), 1 / sqrt(d)), the initialisation of the paper's code."""
    return (2 * torch.rand(rows, size) - 1) / size**0.5
