"""Settings by which the texts of a data module become token ids, shared by data modules."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from renate_stages.errors import (
    InvalidModuleSettingError,
    MissingFileError,
    TextEncodingError,
    TextSettingError,
)
from renate_stages.preprocessing import Preprocessing
from renate_stages.preprocessing.text import TextPreprocessing
from renate_stages.preprocessing.text_settings import BPE, FILE, WORDS, TextSettings


class TextInput:
    """The text columns of a data module, and how their texts become token ids.

    Args:
        text: Name of the column, or of the two of a pair.
        tokenizer: Path of a `tokenizer.json`, in the folder of the data or from the current one;
            `bpe`; or None for a vocabulary of words.
        max_length: As the others, see `TextSettings`.
        vocab_size: Maximum number of ids.
        min_count: How often a word must occur.
        lower: Whether to convert to lower case.

    Raises:
        TextSettingError: If a setting cannot be used.
    """

    def __init__(
        self,
        text: str | Sequence[str],
        tokenizer: str | None,
        max_length: int,
        vocab_size: int,
        min_count: int,
        lower: bool,
    ) -> None:
        if not isinstance(tokenizer, str | None) or tokenizer == "":
            raise TextSettingError("tokenizer", tokenizer, "bpe, or the path of a tokenizer.json")
        self._given = None if tokenizer in (None, BPE) else tokenizer
        method = {None: WORDS, BPE: BPE}.get(tokenizer, FILE)
        names: tuple[Any, ...] = tuple(text) if isinstance(text, list | tuple) else (text,)
        self.settings = TextSettings(names, method, max_length, vocab_size, min_count, lower)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns with the text, one or two."""
        return self.settings.columns

    @property
    def is_fitted_on_data(self) -> bool:
        """Whether the ids depend on the texts of the first update."""
        return self._given is None

    def tokenizer_path(self, folder: Path) -> Path | None:
        """Return the path of the given tokenizer; None if none is given, or the file is missing."""
        if self._given is None:
            return None
        for path in (folder / self._given, Path(self._given)):
            if path.is_file():
                return path
        return None

    def preprocessing(self, parent: Preprocessing | None, folder: Path) -> TextPreprocessing:
        """Return the parent's preprocessing with these settings, or a new one.

        Args:
            parent: That of earlier updates, if there were any.
            folder: The folder of the data.

        Raises:
            TextEncodingError: If texts would get other ids than in earlier updates.
            MissingFileError: If the tokenizer's file does not exist.
            InvalidTokenizerError: If it cannot be used.
            MissingExtraError: If it needs the package `tokenizers`, which is not installed.
        """
        path = self.tokenizer_path(folder)
        given = None if path is None else path.read_bytes()
        if isinstance(parent, TextPreprocessing):
            return parent.with_settings(self.settings, given)
        if parent is not None:
            raise TextEncodingError(
                f"examples of earlier updates are of kind {parent.kind}, not text"
            )
        if self._given is not None and given is None:
            what = "it is the tokenizer of data.module"
            cure = "correct the path, or put the file there"
            raise MissingFileError(self._given, what, cure)
        return TextPreprocessing(self.settings, given, str(path))

    def fingerprint(self, found: Preprocessing | None) -> str | None:
        """Return the SHA-256 of a given `tokenizer.json`; None without one."""
        if self._given is None or not isinstance(found, TextPreprocessing) or not found.tokenizer:
            return None
        return f"tokenizer {sha256(found.tokenizer).hexdigest()}"


DEFAULTS = (None, 512, 20_000, 2, True)  # of `tokenizer` and the settings that follow it


def optional_text(
    module: str, inputs: object, text: str | Sequence[str] | None, *settings: Any
) -> TextInput | None:
    """Return the text of a data module that may also have other inputs; None if `text` is not set.

    Args:
        module: Name of the data module, for messages.
        inputs: Its setting `inputs`; None: not set.
        text: Its setting `text`; None: not set.
        *settings: `tokenizer`, `max_length`, `vocab_size`, `min_count` and `lower`.

    Raises:
        InvalidModuleSettingError: If both are set, or settings for texts without `text`.
        TextSettingError: If a setting cannot be used.
    """
    if text is None:
        if settings != DEFAULTS:
            expected = "what has the text, because settings for texts are given"
            raise InvalidModuleSettingError(module, "text", text, expected)
        return None
    if inputs is not None:
        raise InvalidModuleSettingError(module, "inputs", inputs, "none, because text is set")
    return TextInput(text, *settings)
