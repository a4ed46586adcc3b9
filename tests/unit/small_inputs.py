"""Shared helpers of tests of models for tables and texts: small models and batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renate_stages.models.module import RenateModule
from renate_stages.models.registry import build

CARDINALITIES, VOCABULARY = [5, 4], 12
SMALL: dict[str, dict[str, Any]] = {
    "TabularMLP": {"hidden_size": 8, "embedding_size": 3},
    "FTTransformer": {"token_size": 8, "num_heads": 2, "num_blocks": 2},
    "TextCNN": {"embedding_size": 6, "num_filters": 4, "kernel_sizes": [1, 2, 3]},
    "TextGRU": {"embedding_size": 6, "hidden_size": 4, "num_layers": 2, "dropout": 0.1},
    "TextTransformer": {"embedding_size": 8, "num_heads": 2, "hidden_size": 9, "max_length": 20},
}
TABLES, TEXTS = ("TabularMLP", "FTTransformer"), ("TextCNN", "TextGRU", "TextTransformer")


def small(name: str, num_outputs: int = 3, **changes: Any) -> RenateModule:
    """Build a small model of a name under a fixed seed, in evaluation mode."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY}
    if name in TABLES:
        sizes = {"num_numeric": 3, "cardinalities": CARDINALITIES}
    return build(name, {**sizes, "num_outputs": num_outputs, **SMALL[name], **changes}).eval()


def grown_sizes(name: str) -> dict[str, Any]:
    """Sizes with two more codes in a column, or two more tokens."""
    if name in TABLES:
        return {"num_numeric": 3, "cardinalities": [CARDINALITIES[0], CARDINALITIES[1] + 2]}
    return {"vocab_size": VOCABULARY + 2}


def table(rows: int, more: int = 0) -> dict[str, Tensor]:
    """A batch of a table, with `more` codes in each column than the models have."""
    draws = torch.Generator().manual_seed(1)
    missing = (torch.rand(rows, 3, generator=draws) < 0.3).float()
    codes = [torch.randint(0, n + more, (rows,), generator=draws) for n in CARDINALITIES]
    numeric = torch.randn(rows, 3, generator=draws) * (1 - missing)
    return {"numeric": numeric, "missing": missing, "categorical": torch.stack(codes, dim=1)}


def texts(lengths: list[int], more: int = 0, width: int | None = None) -> dict[str, Tensor]:
    """A batch of texts of these lengths, padded to `width`, with `more` tokens than the models have."""
    draws = torch.Generator().manual_seed(1)
    width = max(lengths) if width is None else width
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, VOCABULARY + more, mask.shape, generator=draws) * mask
    return {"input_ids": ids, "attention_mask": mask.long()}


def batch_of(name: str, more: int = 0) -> dict[str, Tensor]:
    """A batch of 6 rows for the model of a name."""
    return table(6, more) if name in TABLES else texts([7, 1, 3, 0, 5, 7], more)
