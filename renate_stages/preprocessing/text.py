"""`TextPreprocessing`: from stored texts to token ids, by a growing vocabulary or a fixed tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from renate_stages.errors import NoWordsError, TextEncodingError
from renate_stages.errors.wording import counted
from renate_stages.memory import ExampleStore, Ragged, Tree
from renate_stages.preprocessing.base import FOLDER, Preprocessing, RawColumn
from renate_stages.preprocessing.stored_text import (
    INPUTS,
    given_texts,
    padded_ids,
    ragged_of,
    texts_of,
)
from renate_stages.preprocessing.text_settings import BPE, FILE, WORDS, TextSettings
from renate_stages.preprocessing.words import (
    SEPARATOR,
    UNKNOWN,
    Vocabulary,
    words_of,
    words_of_pair,
)

if TYPE_CHECKING:
    from renate_stages.preprocessing.tokenizer_file import TokenizerFile

TOKENIZER = "tokenizer.json"
ROOM = 512  # tokens that new models take at least, so that max_length can be raised later


class TextPreprocessing(Preprocessing):
    """Turns texts into stored bytes, and stored bytes into token ids.

    Stored inputs are the UTF-8 bytes of a text in normal form C, `Ragged` uint8; see
    `preprocessing.words`. The model's inputs are a dict of int64 tensors `(B, T)`: `input_ids`, padded
    with 0 at the end, and `attention_mask`, 1 for tokens and 0 for padding. T is at least 1. Id 0 is
    padding, and with a vocabulary 1 is an unknown word. The ids of a given tokenizer are raised by 1 if
    its first token is not padding. An empty text has no tokens but special ones.

    Args:
        settings: How texts become token ids.
        tokenizer: The bytes of a `tokenizer.json`, for the method `file`, or `bpe` once trained.
        name: Path of that file, for errors.
        words: Words of earlier updates in the order of their ids.

    Attributes:
        unknown_before: Share of tokens in the training rows of the last `fit` that were unknown
            before it; None if they have no tokens or if it was the first one.
        added: Number of words that the last `fit` added.

    Raises:
        InvalidTokenizerError: If the tokenizer cannot be used.
        MissingExtraError: If it needs the package `tokenizers`, which is not installed.
    """

    kind: ClassVar[str] = "text"

    def __init__(
        self,
        settings: TextSettings = TextSettings(),  # noqa: B008 -- frozen
        tokenizer: bytes | None = None,
        name: str = TOKENIZER,
        words: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        if not words and settings.pair and settings.method == WORDS:
            words = [SEPARATOR]
        self._vocabulary = Vocabulary(words)
        self._tokenizer = None if tokenizer is None else self._opened(tokenizer, name)
        self.unknown_before: float | None = None
        self.added = 0

    @property
    def words(self) -> list[str]:
        """Words in the order of their ids, the first of which is 2; none with a tokenizer."""
        return self._vocabulary.words

    @property
    def tokenizer(self) -> bytes | None:
        """The bytes of its `tokenizer.json`; None without a tokenizer."""
        return None if self._tokenizer is None else self._tokenizer.data

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The column of the text, or the two of a pair."""
        return tuple(RawColumn(name, "text") for name in self.settings.columns)

    @property
    def packages(self) -> tuple[str, ...]:
        """`tokenizers`, if it has a tokenizer."""
        return () if self._tokenizer is None else ("tokenizers",)

    @property
    def is_given(self) -> bool:
        """Whether the user has given the tokenizer."""
        return self.settings.method == FILE

    @property
    def is_fitted(self) -> bool:
        """Whether it has a tokenizer or words."""
        special = int(self.settings.pair and self.settings.method == WORDS)
        return self._tokenizer is not None or len(self.words) > special

    def with_settings(self, settings: TextSettings, tokenizer: bytes | None = None) -> Self:
        """Return it with other settings, for the next update.

        Args:
            settings: The settings. Columns, `max_length`, `vocab_size` and `min_count` may differ.
            tokenizer: The bytes of the `tokenizer.json` that the settings give; None if it is not
                there any more.

        Raises:
            TextEncodingError: If texts would get other ids than before.
        """
        kept = self.tokenizer if tokenizer is None else tokenizer
        found = type(self)(settings, kept, words=self.words)
        found.built = self.built
        if problem := found.problem_with(self):
            raise TextEncodingError(problem)
        return found

    def fit(self, train: ExampleStore, path: str = INPUTS) -> dict[str, Any]:
        """Count words of training rows and add the frequent ones; train a tokenizer if it has none.

        Args:
            train: The training rows.
            path: Path of the stored texts in an example.

        Returns:
            By column: the number of words that were added, the share of tokens that were unknown before,
            and the number of texts that are cut off.
        """
        fitted, self.unknown_before, self.added = self.is_fitted, None, 0
        if self._tokenizer is not None:
            self.unknown_before = self.unknown_share(train, path)
        elif self.settings.method == BPE:
            self._train(train, path)
        else:
            counts: Counter[str] = Counter()
            for text in texts_of(train, path):
                counts.update(self._words(text))
            counts.pop(SEPARATOR, None)
            if not fitted and max(counts.values(), default=0) < self.settings.min_count:
                raise NoWordsError(self.settings.columns, self.settings.min_count)
            if fitted and counts:
                new = sum(n for word, n in counts.items() if self._vocabulary.ids([word]) == [1])
                self.unknown_before = new / counts.total()
            settings = self.settings
            self.added = self._vocabulary.grow(counts, settings.min_count, settings.vocab_size)
        column, share = " and ".join(self.settings.columns), self.unknown_before
        found = {"new_words": {column: self.added}} if fitted and self.added else {}
        found |= {} if share is None else {"share_of_unknown_words": {column: share}}
        cut = sum(map(self._is_cut, texts_of(train, path)))
        return found | ({"texts_cut_off_at_max_length": {column: cut}} if cut else {})

    def unknown_share(self, store: ExampleStore, path: str = INPUTS) -> float | None:
        """Return the share of a store's tokens that are unknown, in [0, 1].

        Before `fit`, it is a sign of shift: how many words the parent's model has not seen.

        Returns:
            The share; None if there are no tokens, nothing was fitted, or the tokenizer knows all.
        """
        unknown = UNKNOWN if self._tokenizer is None else self._tokenizer.unknown
        if not self.is_fitted or unknown is None:
            return None
        total = misses = 0
        for text in texts_of(store, path):
            ids = self.ids(text)
            total += len(ids)
            misses += ids.count(unknown)
            if self._tokenizer is None and self.settings.pair:
                total -= 1  # the separator
        return misses / total if total else None

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a stored text, at most `max_length`."""
        if self._tokenizer is not None:
            return self._tokenizer.ids(text)
        return self._vocabulary.ids(self._words(text))

    def encode(self, rows: Any) -> Ragged:
        """Return texts as stored inputs.

        Args:
            rows: A list, array or pandas Series of texts, for pairs of lists or tuples of two texts;
                or a DataFrame, an Arrow table or a list of dicts with the columns of the settings.

        Raises:
            TextRowError: If a row is not a text that can be stored; it names the row.
        """
        return ragged_of(map(str.encode, given_texts(rows, self.settings.columns)))

    def transform(self, stored: Tree) -> Tree:
        """Return `{"input_ids", "attention_mask"}`, int64 `(B, T)`, for stored texts.

        Args:
            stored: UTF-8 bytes, a uint8 tensor `(B, L)` padded with zeros at the end.

        Raises:
            TypeError: If it is another kind of tensor.
            ValueError: If a row is not UTF-8.
        """
        import torch

        if not isinstance(stored, torch.Tensor) or stored.dtype != torch.uint8 or stored.ndim != 2:
            found = getattr(stored, "dtype", type(stored).__name__)
            raise TypeError(f"expected stored texts, uint8 (B, L), found {found}")
        texts = [bytes(row).rstrip(b"\0").decode() for row in stored.cpu().numpy()]
        rows = [self.ids(text) for text in texts]
        ids, mask = padded_ids(rows)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def summary(self) -> str:
        """Return the columns, and how their texts are read."""
        columns, number = " and ".join(self.settings.columns), self.sizes()["vocab_size"]
        how = {
            WORDS: f"a vocabulary of {len(self.words)} words",
            BPE: f"a tokenizer of {number} ids, trained on them",
            FILE: f"the given tokenizer of {number} ids",
        }
        return f"texts: {columns}, read with {how[self.settings.method]}"

    def sizes(self) -> dict[str, Any]:
        """Return `vocab_size`, the number of ids, and `max_length`, the most tokens of a text."""
        size = len(self._vocabulary) if self._tokenizer is None else self._size
        return {"vocab_size": size, "max_length": self.settings.max_length}

    def sizes_of_new_model(self) -> dict[str, Any]:
        """Return the sizes, with room to raise `max_length` later."""
        return {**self.sizes(), "max_length": max(ROOM, self.settings.max_length)}

    def content(self) -> dict[str, Any]:
        """Return settings and words as JSON values, and the SHA-256 of the tokenizer."""
        data, settings = self.tokenizer, self.settings.to_json()
        digest = None if data is None else sha256(data).hexdigest()
        return {"settings": settings, "tokenizer": digest, "words": self.words}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Return the preprocessing that `content` describes; see `Preprocessing`."""
        words, digest = content["words"], content["tokenizer"]
        if not isinstance(words, list):
            raise TypeError("words must be a list")
        if not all(isinstance(word, str) and word for word in words) or len({*words}) < len(words):
            raise ValueError("words must be different texts")
        settings = TextSettings.from_json(content["settings"])
        pair = settings.pair and settings.method == WORDS
        if pair != (words[:1] == [SEPARATOR]) or (words and settings.method != WORDS):
            raise ValueError("the words do not fit the settings")
        if digest is None:
            if settings.method == FILE:
                raise ValueError(f"{TOKENIZER} is not recorded")
            return cls(settings, words=words)
        if settings.method == WORDS or not (folder / TOKENIZER).is_file():
            raise ValueError(f"{TOKENIZER} is missing, or its method is {WORDS}")
        data = (folder / TOKENIZER).read_bytes()
        if sha256(data).hexdigest() != digest:
            raise ValueError(f"{TOKENIZER} is not the file that was recorded")
        return cls(settings, data, str(folder / TOKENIZER))

    def problem_reading(self, writer: Preprocessing) -> str | None:
        """Return why this one cannot read texts stored by `writer`; its own ids are no problem."""
        if not isinstance(writer, TextPreprocessing):
            return super().problem_reading(writer)
        texts = ["pairs" if each.settings.pair else "single texts" for each in (self, writer)]
        return None if texts[0] == texts[1] else f"it reads {texts[0]}, but {texts[1]} are stored"

    def problem_with(self, older: TextPreprocessing) -> str | None:
        """Return why texts get other ids by this than by `older`; None if they do not."""
        new, old = self.settings, older.settings
        if new.pair != old.pair:
            columns = counted(len(new.columns), "column")
            return f"text has {columns}, earlier updates {len(old.columns)}"
        if new.pair and new.columns != old.columns and {*new.columns} == {*old.columns}:
            order = " and ".join(old.columns)
            return f"text has the columns of earlier updates, {order}, in another order"
        if new.method != old.method:
            return f"the tokenizer is {new.method!r}, in earlier updates {old.method!r}"
        if new.lower != old.lower and new.method != FILE:
            return f"lower is {new.lower}, in earlier updates {old.lower}"
        if self.words[: len(older.words)] != older.words:
            return "the vocabulary does not begin with that of earlier updates"
        if older.tokenizer is not None and self.tokenizer != older.tokenizer:
            return f"{TOKENIZER} is not that of earlier updates"
        return None

    def write(self, folder: Path) -> None:
        """Write it, with its `tokenizer.json`, to the folder `preprocessing` inside `folder`."""
        super().write(folder)
        if self._tokenizer is not None:
            (folder / FOLDER / TOKENIZER).write_bytes(self._tokenizer.data)

    def _opened(self, data: bytes, name: str) -> TokenizerFile:
        from renate_stages.preprocessing.tokenizer_file import TokenizerFile

        settings = self.settings
        found = TokenizerFile(data, name, settings.max_length, pair=settings.pair)
        self._size = found.size
        return found

    def _train(self, train: ExampleStore, path: str) -> None:
        from renate_stages.preprocessing.tokenizer_file import halves, trained_bpe

        settings = self.settings
        texts = texts_of(train, path)
        texts = halves(texts) if settings.pair else texts
        size, least = settings.vocab_size, settings.min_count
        data = trained_bpe(texts, size, least, lower=settings.lower, pair=settings.pair)
        self._tokenizer = self._opened(data, TOKENIZER)

    def _words(self, text: str, more: int = 0) -> list[str]:
        split: Callable[..., list[str]] = words_of_pair if self.settings.pair else words_of
        return split(text, self.settings.max_length + more, lower=self.settings.lower)

    def _is_cut(self, text: str) -> bool:
        """Return whether a stored text has more than `max_length` tokens."""
        if self._tokenizer is not None:
            return self._tokenizer.is_cut(text)
        most = self.settings.max_length
        return len(text) >= most and len(self._words(text, more=1)) > most
