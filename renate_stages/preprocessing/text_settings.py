"""`TextSettings`: how texts become token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from renate_stages.errors import TextSettingError

WORDS, BPE, FILE = "words", "bpe", "file"  # methods
_LARGEST = 2**31


@dataclass(frozen=True)
class TextSettings:
    """How texts become token ids.

    Args:
        columns: Names of the columns with the text, one or, for pairs, two.
        method: `words`: a vocabulary of words, which grows; `bpe`: a tokenizer trained on the first
            update; `file`: a given `tokenizer.json`.
        max_length: Maximum number of tokens of an example; later ones are cut off.
        vocab_size: Maximum number of ids of `words` and `bpe`.
        min_count: How often a word, or for `bpe` two neighbours, must occur in the training rows of
            an update to get an id.
        lower: Whether `words` and `bpe` convert to lower case.

    Raises:
        TextSettingError: If a value is out of range.
    """

    columns: tuple[str, ...] = ("text",)
    method: str = WORDS
    max_length: int = 512
    vocab_size: int = 20_000
    min_count: int = 2
    lower: bool = True

    def __post_init__(self) -> None:
        names = self.columns
        named = all(isinstance(name, str) and name for name in names)
        if not named or not 1 <= len(names) <= 2 or len({*names}) < len(names):
            found = names[0] if len(names) == 1 else list(names)
            raise TextSettingError("text", found, "the name of a column, or a list of two names")
        least = {"max_length": 3 if self.pair else 1, "vocab_size": 4, "min_count": 1}
        for name, value in least.items():
            found = getattr(self, name)
            if type(found) is not int or not value <= found < _LARGEST:
                raise TextSettingError(name, found, f"a whole number from {value} on")
        if type(self.lower) is not bool:
            raise TextSettingError("lower", self.lower, "true or false")
        if self.method not in (WORDS, BPE, FILE):
            raise TextSettingError("tokenizer", self.method, "bpe, or the path of a tokenizer.json")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "columns": list(self.columns)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Return the settings that `to_json` returned, from a file that nobody vouches for.

        Raises:
            KeyError, TypeError, ValueError: If they are not valid.
        """
        values = {field.name: given[field.name] for field in fields(cls)}
        if not isinstance(values["columns"], list):
            raise TypeError("columns must be a list")
        try:
            return cls(**{**values, "columns": tuple(values["columns"])})
        except TextSettingError as error:
            raise ValueError(str(error).split("\n")[0]) from error

    def of_column(self, name: str) -> TextSettings:
        """Return the same settings for the texts of one column."""
        return replace(self, columns=(name,))

    @property
    def pair(self) -> bool:
        """Whether an example has two texts."""
        return len(self.columns) == 2
