"""Base classes of the models for texts: check the inputs, embed the tokens, grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError, ModelInputsError
from renate_stages.models.feature_classifier import FeatureClassifier, check_positive
from renate_stages.models.growing_embedding import GrowingEmbedding

UNKNOWN = 1  # id of unknown tokens; 0 is padding


class TextFeatures(nn.Module):
    """Base class of the features of a text, with an embedding of its tokens.

    Args:
        vocab_size: Number of token ids.
        embedding_size: Width E of a token's vector.
    """

    def __init__(self, vocab_size: int, embedding_size: int) -> None:
        super().__init__()
        self.embedding = GrowingEmbedding(vocab_size, embedding_size, unknown=UNKNOWN)

    def tokens(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return token ids (B, T) int64, 0 for padding, and which ones are tokens; see `tokens_of`."""
        return tokens_of(x)


class TextModel(FeatureClassifier):
    """Base class of models whose `features` are `TextFeatures`."""

    features: TextFeatures

    def grow_inputs(self, sizes: Mapping[str, Any]) -> None:
        """Give the embedding rows for all token ids; a smaller vocabulary changes nothing.

        Args:
            sizes: `vocab_size`, the number of token ids; may be absent.
        """
        if sizes.get("vocab_size") is not None:
            self.grow_outputs("features.embedding", sizes["vocab_size"])

    def layers_to_distil(self) -> list[nn.Module]:
        return [self.features]  # the layers below return values for each token


def tokens_of(x: Any) -> tuple[Tensor, Tensor]:
    """Return token ids (B, T) int64, 0 for padding, and which ones are tokens, (B, T) bool; T >= 1.

    Raises:
        ModelInputsError: If the inputs are not a dict of `input_ids` and `attention_mask`.
    """
    ids, mask = (_part(x, name) for name in ("input_ids", "attention_mask"))
    if ids.shape != mask.shape:
        found = f"`input_ids` {tuple(ids.shape)} and `attention_mask` {tuple(mask.shape)}"
        raise ModelInputsError("A model for texts", found, "equal shapes (B, T)")
    if ids.shape[1] == 0:  # no text of the batch has a token
        ids, mask = F.pad(ids, (0, 1)), F.pad(mask, (0, 1))
    is_token = mask != 0
    return ids.masked_fill(~is_token, 0), is_token


def _part(x: Any, name: str) -> Tensor:
    part = x.get(name) if isinstance(x, Mapping) else None
    if isinstance(part, Tensor) and part.ndim == 2:
        return part
    found = type(x).__name__
    if isinstance(x, Mapping):
        shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        found = f"no `{name}`" if part is None else f"`{name}` of {shape}"
    expected = "a dict with `input_ids` and `attention_mask` (B, T) int64"
    raise ModelInputsError("A model for texts", found, expected)


def check_vocabulary(
    model: str, vocab_size: int, embedding_size: int, name: str = "vocab_size"
) -> None:
    """Check the sizes of an embedding of tokens.

    Raises:
        ModelArgumentError: If a size is outside its range.
    """
    check_positive(model, embedding_size=embedding_size)
    if not isinstance(vocab_size, int) or vocab_size < 2:
        expected = "a whole number, at least 2: ids for padding and for unknown tokens"
        raise ModelArgumentError(model, name, vocab_size, expected)
