"""The transformer block of the reference models (Vaswani et al., "Attention Is All You Need", NeurIPS 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import check_positive


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward network, each after a layer norm and with a shortcut.

        x <- x + attention(norm(x)),  x <- x + W2 a(W1 norm(x))

    Args:
        size: Width d of a token.
        num_heads: Number of heads, which divides d.
        hidden_size: Width of the feed-forward network.
        gated: Whether a is ReGLU, `u * relu(v)` for the two halves of W1's outputs (Shazeer, "GLU Variants
            Improve Transformer", 2020), or GELU.
        attention_dropout: Share of attention weights set to zero in training.
        hidden_dropout: The same for the values after a.
        residual_dropout: The same for what is added to x.
        first_norm: Whether attention has its layer norm.
    """

    def __init__(
        self,
        size: int,
        num_heads: int,
        hidden_size: int,
        *,
        gated: bool,
        attention_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        residual_dropout: float = 0.0,
        first_norm: bool = True,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size) if first_norm else nn.Identity()
        self.attention = SelfAttention(size, num_heads, attention_dropout)
        self.hidden_norm = nn.LayerNorm(size)
        self.hidden = nn.Sequential(
            nn.Linear(size, 2 * hidden_size if gated else hidden_size),
            ReGLU() if gated else nn.GELU(),
            nn.Dropout(hidden_dropout),
            nn.Linear(hidden_size, size),
        )
        self.dropout = nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return (B, T, d) for tokens (B, T, d).

        Args:
            x: The tokens.
            keys: Which tokens may be attended to, (B, T) bool, at least one in each row; None: all.
        """
        x = x + self.dropout(self.attention(self.attention_norm(x), keys))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


class SelfAttention(nn.Module):
    """Multi-head self-attention, `softmax(Q K^T / sqrt(d / heads)) V`.

    Args:
        size: Width d of a token.
        num_heads: Number of heads, which divides d.
        dropout: Share of attention weights set to zero in training.
    """

    def __init__(self, size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.projection = nn.Linear(size, 3 * size)  # queries, keys, values
        self.output = nn.Linear(size, size)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return (B, T, d); the arguments are those of `TransformerBlock`."""
        projected = self.projection(x).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, h, d/h)
        q, k, v = projected.permute(2, 0, 3, 1, 4)  # each (B, h, T, d/h)
        mask = None if keys is None else keys[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))


class ReGLU(nn.Module):
    """Returns `u * relu(v)` (..., h) for the halves u and v of the last dimension (..., 2h)."""

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1)
        return u * torch.relu(v)


def check_transformer(
    model: str, size_name: str, size: int, num_blocks: int, num_heads: int
) -> None:
    """Check the sizes of a transformer.

    Raises:
        ModelArgumentError: If a number is outside its range, or the heads do not divide the width.
    """
    check_positive(model, **{size_name: size, "num_blocks": num_blocks, "num_heads": num_heads})
    if size % num_heads:
        raise ModelArgumentError(model, "num_heads", num_heads, f"a divisor of {size_name}, {size}")
