"""A `tokenizer.json`: checked, read with the package `tokenizers`, or trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from renate_stages.errors import InvalidTokenizerError, MissingExtraError
from renate_stages.preprocessing.words import SEPARATOR

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PAD, UNK, SEP = "[PAD]", "[UNK]", "[SEP]"  # of a trained tokenizer: ids 0, 1 and 2


class TokenizerFile:
    """A tokenizer with the bytes of its file, which must not change between updates.

    Models expect that id 0 is padding. If the tokenizer has another token there, such as `<s>`, all its
    ids are raised by 1.

    Args:
        data: The bytes of a `tokenizer.json`, as the package `tokenizers` writes it.
        name: Path of the file, for errors.
        max_length: Maximum number of tokens of a text or pair, with special ones.
        pair: Whether texts are pairs.

    Raises:
        InvalidTokenizerError: If the file cannot be read, its results are random, or `max_length`
            leaves no token for the text.
        MissingExtraError: If the package is not installed.
    """

    def __init__(self, data: bytes, name: str, max_length: int, *, pair: bool) -> None:
        self.data, self.name, self.max_length, self.pair = data, name, max_length, pair
        self._tokenizer: Tokenizer = _opened(data, name)
        if getattr(self._tokenizer.model, "dropout", None):
            cure = 'set "dropout" to null in the file'
            raise InvalidTokenizerError(name, "its model has dropout, so ids would be random", cure)
        self._special = special = self._tokenizer.num_special_tokens_to_add(pair)
        if max_length < special + 1 + pair:
            problem = f"it adds {special} special tokens, too many for max_length {max_length}"
            raise InvalidTokenizerError(name, problem, "set a larger max_length")
        first = self._tokenizer.id_to_token(0)
        is_padding = first is None or re.sub("[^a-z]", "", first.lower()) == "pad"
        self.raised = 0 if is_padding else 1
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.data, self.name, self.max_length, self.pair)

    @property
    def size(self) -> int:
        """The largest id plus 1, which embeddings need."""
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        return max(ids, default=-1) + 1 + self.raised

    @property
    def unknown(self) -> int | None:
        """Id of unknown tokens; None if the tokenizer has none, such as one of bytes."""
        name = getattr(self._tokenizer.model, "unk_token", None)
        number = None if name is None else self._tokenizer.token_to_id(name)
        return None if number is None else number + self.raised

    def ids(self, text: str) -> list[int]:
        """Return the ids of a stored text or pair, at most `max_length`."""
        found = self._encoded(text).ids
        return [number + 1 for number in found] if self.raised else found

    def is_cut(self, text: str) -> bool:
        """Return whether a stored text or pair has more than `max_length` tokens."""
        may_be = len(text.encode()) + self._special > self.max_length
        return may_be and bool(self._encoded(text).overflowing)

    def _encoded(self, text: str) -> Encoding:
        if self.pair:
            first, _, second = text.partition(SEPARATOR)
            return self._tokenizer.encode(first, second)
        return self._tokenizer.encode(text)


def trained_bpe(
    texts: Iterator[str], vocab_size: int, min_count: int, *, lower: bool, pair: bool
) -> bytes:
    """Return a `tokenizer.json` of byte pairs, which knows every text, trained on texts.

    Byte-level BPE: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

    Args:
        texts: Texts.
        vocab_size: Maximum number of ids; 256 bytes and the special tokens are always there.
        min_count: How often two neighbours must occur to become a token.
        lower: Whether the tokenizer converts to lower case.
        pair: Whether a special token separates the texts of a pair.

    Raises:
        MissingExtraError: If the package `tokenizers` is not installed.
    """
    _require()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [PAD, UNK, SEP] if pair else [PAD, UNK]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if pair:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair=f"$A {SEP} $B", special_tokens=[(SEP, 2)]
        )
    return tokenizer.to_str().encode()


def halves(texts: Iterable[str]) -> Iterator[str]:
    """Yield both texts of each stored pair."""
    for text in texts:
        first, _, second = text.partition(SEPARATOR)
        yield from (first, second)


def _opened(data: bytes, name: str) -> Tokenizer:
    _require()
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:
        cure = "use a file that tokenizers.Tokenizer.save wrote"
        raise InvalidTokenizerError(name, str(error).split("\n")[0][:200], cure) from error


def _again(data: bytes, name: str, max_length: int, pair: bool) -> TokenizerFile:
    return TokenizerFile(data, name, max_length, pair=pair)


def _require() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a tokenizer", "tokenizers", "text") from error
