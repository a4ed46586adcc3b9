"""Base classes of the models for tables: check the inputs, embed the categorical columns, grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from renate_stages.errors import InputSizesError, ModelArgumentError, ModelInputsError
from renate_stages.models.feature_classifier import FeatureClassifier, check_positive
from renate_stages.models.growing_embedding import GrowingEmbedding


class TableFeatures(nn.Module):
    """Base class of the features of a table, with an embedding for each categorical column.

    Args:
        num_numeric: Number n of numeric columns.
        cardinalities: Number of codes of each of the c categorical columns.
        widths: Width of the embedding of each categorical column.
    """

    def __init__(
        self, num_numeric: int, cardinalities: Sequence[int], widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.num_numeric = num_numeric
        self.embeddings = nn.ModuleList(
            GrowingEmbedding(number, width)
            for number, width in zip(cardinalities, widths, strict=True)
        )

    def numeric(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return the values of the numeric columns and which ones are missing, both (B, n).

        Raises:
            ModelInputsError: If the inputs are not a dict of these columns.
        """
        return self._part(x, "numeric"), self._part(x, "missing")

    def vectors(self, x: Any) -> list[Tensor]:
        """Return the embedded codes of each categorical column, (B, width).

        Raises:
            ModelInputsError: If the inputs are not a dict of these columns.
        """
        codes = self._part(x, "categorical")
        return [embedding(codes[:, place]) for place, embedding in enumerate(self.embeddings)]

    def _part(self, x: Any, name: str) -> Tensor:
        width = len(self.embeddings) if name == "categorical" else self.num_numeric
        part = x.get(name) if isinstance(x, Mapping) else None
        if not isinstance(part, Tensor) or part.ndim != 2 or part.shape[1] != width:
            found = type(x).__name__
            if isinstance(x, Mapping):
                found = f"no `{name}`" if part is None else f"`{name}` of {_described(part)}"
            raise ModelInputsError("A model for tables", found, self._expected())
        return part

    def _expected(self) -> str:
        numeric, categorical = self.num_numeric, len(self.embeddings)
        parts = [f"`numeric` and `missing` (B, {numeric}) float"] if numeric else []
        parts += [f"`categorical` (B, {categorical}) int64"] if categorical else []
        return f"a dict with {', '.join(parts)}"


class TableModel(FeatureClassifier):
    """Base class of models whose `features` are `TableFeatures`."""

    features: TableFeatures

    def grow_inputs(self, sizes: Mapping[str, Any]) -> None:
        """Give each embedding rows for all codes of its column; smaller sizes change nothing.

        Args:
            sizes: `cardinalities`, the number of codes of each categorical column, and `num_numeric`.
                Either may be absent.

        Raises:
            InputSizesError: If the number of columns has changed.
        """
        name = type(self).__name__
        numeric = sizes.get("num_numeric", self.features.num_numeric)
        if numeric != self.features.num_numeric:
            raise InputSizesError(name, "numeric columns", self.features.num_numeric, numeric)
        numbers, embeddings = sizes.get("cardinalities"), self.features.embeddings
        if numbers is None:
            return
        if len(numbers) != len(embeddings):
            raise InputSizesError(name, "categorical columns", len(embeddings), len(numbers))
        for place, number in enumerate(numbers):
            self.grow_outputs(f"features.embeddings.{place}", number)


def check_columns(model: str, num_numeric: int, cardinalities: Sequence[int]) -> None:
    """Check the sizes of a table.

    Raises:
        ModelArgumentError: If a size is outside its range, or there is no column.
    """
    if isinstance(num_numeric, bool) or not isinstance(num_numeric, int) or num_numeric < 0:
        expected = "a whole number, at least 0"
        raise ModelArgumentError(model, "num_numeric", num_numeric, expected)
    if isinstance(cardinalities, str) or not isinstance(cardinalities, Sequence):
        expected = "a list with the number of codes of each categorical column"
        raise ModelArgumentError(model, "cardinalities", cardinalities, expected)
    for number in cardinalities:
        check_positive(model, cardinalities=number)
    if not num_numeric and not cardinalities:
        expected = "at least one numeric or categorical column"
        raise ModelArgumentError(model, "num_numeric", num_numeric, expected)


def _described(part: Any) -> str:
    return f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
