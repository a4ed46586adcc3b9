"""`GrowingEmbedding`: a table of vectors for codes that gets rows for codes of later updates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError


class GrowingEmbedding(nn.Embedding):
    """An embedding whose row 0 is always zero, and which reads codes that it has no row for as unknown.

        embedding = GrowingEmbedding(num_rows=4, dim=8)
        embedding(torch.tensor([[2, 9]]))  # (1, 2, 8); 9 is unknown

    Rows have the initialisation of `nn.Embedding`. Rows that are added later start as copies of the
    row of unknown codes, so that the outputs for the new codes do not change until they are trained.
    A `RenateModule` lets it grow by `grow_outputs(name of the embedding, number of rows)`, as it does
    for output layers, so that the state dict records the growth.

    Args:
        num_rows: Number of rows, > `unknown`.
        dim: Width of a row.
        unknown: The row that is read for codes below 0 or without a row of their own. The default is
            row 0. In texts, where code 0 is padding, it is row 1, which is trained.

    Raises:
        ModelArgumentError: If there is no row `unknown`.
    """

    def __init__(self, num_rows: int, dim: int, unknown: int = 0) -> None:
        if not isinstance(num_rows, int) or num_rows <= unknown:
            expected = f"a whole number, at least {unknown + 1}"
            raise ModelArgumentError("GrowingEmbedding", "num_rows", num_rows, expected)
        super().__init__(num_rows, dim, padding_idx=0)
        self.unknown = unknown

    @property
    def num_outputs(self) -> int:
        """Number of rows; named as for the heads that can grow."""
        return self.num_embeddings

    def grow_outputs(self, number: int) -> None:
        """Add rows at the end; the rows that exist keep their bits. No random numbers are drawn.

        Args:
            number: Number of rows after it; nothing happens if there are as many.
        """
        more = number - self.num_embeddings
        if more <= 0:
            return
        old = self.weight.detach()
        added = self._row_of_unknown(old).expand(more, -1)
        self.weight = nn.Parameter(torch.cat([old, added]), self.weight.requires_grad)
        self.num_embeddings = number

    def without_untrained_rows(self) -> Tensor:
        """Return the weight without the last rows that are still copies of the row of unknown codes.

        Embeddings with equal such weights give equal outputs, although one of them may have grown.
        """
        weight = self.weight.detach()
        trained = (weight != self._row_of_unknown(weight)).any(dim=1).nonzero()
        last = int(trained[-1]) if len(trained) else 0
        return weight[: max(last, self.unknown) + 1]

    def forward(self, input: Tensor) -> Tensor:
        """Return vectors (..., dim) for codes (...), int64."""
        known = (input >= 0) & (input < self.num_embeddings)
        codes = torch.where(known, input, self.unknown)
        rows = F.embedding(codes, self.weight, padding_idx=0)
        # Some learners add noise to all weights, but row 0 must stay without any effect.
        return rows.masked_fill((codes == 0).unsqueeze(-1), 0)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, unknown={self.unknown}"

    def _row_of_unknown(self, weight: Tensor) -> Tensor:
        return weight[self.unknown] if self.unknown else torch.zeros_like(weight[0])
