"""Base classes of the models for tables: check the inputs, embed categories and words, grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from renate_stages.errors import InputSizesError, ModelArgumentError, ModelInputsError
from renate_stages.models.feature_classifier import FeatureClassifier, check_positive
from renate_stages.models.growing_embedding import GrowingEmbedding
from renate_stages.models.text_model import UNKNOWN, check_vocabulary, tokens_of


class TableFeatures(nn.Module):
    """Base class of the features of a table, with an embedding for each column of categories or words.

    Args:
        num_numeric: Number n of numeric columns.
        cardinalities: Number of codes of each of the c categorical columns.
        widths: Width of the embedding of each categorical column.
        vocab_sizes: Number of token ids of each of the t text columns.
        word_size: Width of the vector of a word.
    """

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        widths: Sequence[int],
        vocab_sizes: Sequence[int] = (),
        word_size: int = 0,
    ) -> None:
        super().__init__()
        self.num_numeric = num_numeric
        self.embeddings = nn.ModuleList(
            GrowingEmbedding(number, width)
            for number, width in zip(cardinalities, widths, strict=True)
        )
        self.words = nn.ModuleList(
            GrowingEmbedding(number, word_size, unknown=UNKNOWN) for number in vocab_sizes
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

    def texts(self, x: Any) -> list[Tensor]:
        """Return the mean of the words' vectors of each text column, (B, word_size); 0 without words.

        Raises:
            ModelInputsError: If the inputs are not a dict with these columns.
        """
        parts = x.get("text") if isinstance(x, Mapping) else None
        if not isinstance(parts, tuple | list) or len(parts) != len(self.words):
            count = f"{len(parts)} parts" if isinstance(parts, tuple | list) else None
            found = type(x).__name__
            if isinstance(x, Mapping):
                found = "no `text`" if parts is None else f"`text` of {count or _described(parts)}"
            raise ModelInputsError("A model for tables", found, self._expected())
        means = []
        for embedding, part in zip(self.words, parts, strict=True):
            ids, is_token = tokens_of(part)
            counted = is_token[:, :, None].to(embedding.weight.dtype)  # type: ignore[arg-type]
            means.append((embedding(ids) * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1))
        return means

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
        each = "a dict with `input_ids` and `attention_mask` (B, T) int64"
        parts += [f"`text`, a tuple of {len(self.words)}, each {each}"] if len(self.words) else []
        return f"a dict with {', '.join(parts)}"


class TableModel(FeatureClassifier):
    """Base class of models whose `features` are `TableFeatures`."""

    features: TableFeatures

    def grow_inputs(self, sizes: Mapping[str, Any]) -> None:
        """Give each embedding rows for all codes or words of its column; smaller sizes change nothing.

        Args:
            sizes: `cardinalities`, the number of codes of each categorical column, `vocab_sizes`, the
                number of token ids of each text column, and `num_numeric`. Each may be absent.

        Raises:
            InputSizesError: If the number of columns has changed.
        """
        name = type(self).__name__
        numeric = sizes.get("num_numeric", self.features.num_numeric)
        if numeric != self.features.num_numeric:
            raise InputSizesError(name, "numeric columns", self.features.num_numeric, numeric)
        for size, layers, columns in (
            ("cardinalities", "embeddings", "categorical columns"),
            ("vocab_sizes", "words", "text columns"),
        ):
            built = len(self.features.get_submodule(layers)._modules)
            numbers = sizes.get(size)
            if numbers is None:
                continue
            if len(numbers) != built:
                raise InputSizesError(name, columns, built, len(numbers))
            for place, number in enumerate(numbers):
                self.grow_outputs(f"features.{layers}.{place}", number)


def check_columns(
    model: str, num_numeric: int, cardinalities: Sequence[int], vocab_sizes: Sequence[int] = ()
) -> None:
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
    if isinstance(vocab_sizes, str) or not isinstance(vocab_sizes, Sequence):
        expected = "a list with the number of token ids of each text column"
        raise ModelArgumentError(model, "vocab_sizes", vocab_sizes, expected)
    for number in vocab_sizes:
        check_vocabulary(model, number, 1, name="vocab_sizes")
    if not num_numeric and not cardinalities and not vocab_sizes:
        expected = "at least one numeric, categorical or text column"
        raise ModelArgumentError(model, "num_numeric", num_numeric, expected)


def _described(part: Any) -> str:
    return f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
