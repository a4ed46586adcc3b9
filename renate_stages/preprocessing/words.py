"""Words of a text and their ids: `Vocabulary`, which only grows.

A stored text is in Unicode's normal form C and contains no NUL character. The two texts of a pair are
stored as one, with `SEPARATOR` between them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice

PADDING, UNKNOWN = 0, 1
SPECIAL = 2  # ids before those of words
SEPARATOR = "\x1f"  # Unicode's "unit separator", a control character that texts do not use
_ASCII = re.compile(r"\w+|[^\w\s]")


def clean_text(text: str, *, pair: bool = False) -> str:
    """Return a text as it is stored: without NUL characters, in normal form C.

    Args:
        text: Any text.
        pair: Whether it is one of a pair, so that separators in it become spaces.
    """
    text = text.replace("\0", "")
    text = text.replace(SEPARATOR, " ") if pair else text
    return unicodedata.normalize("NFC", text)


def words_of(text: str, most: int, *, lower: bool = True) -> list[str]:
    """Return the first words of a text.

    A word is a sequence of letters, digits, underscores and combining marks, such as the vowel signs
    of Devanagari; any other character but white space is a word of its own.

    Args:
        text: The text.
        most: Maximum number of words.
        lower: Whether to convert to lower case.
    """
    text = text.lower() if lower else text
    pattern = _ASCII if text.isascii() else _unicode()
    if len(text) <= 16 * most:
        return pattern.findall(text)[:most]
    return [found.group() for found in islice(pattern.finditer(text), most)]


def words_of_pair(text: str, most: int, *, lower: bool = True) -> list[str]:
    """Return the first words of both texts of a pair, with `SEPARATOR` between them.

    If both are too long together, the longer one is shortened first, so that neither is lost.

    Args:
        text: The stored pair.
        most: Maximum number of words with the separator, at least 3.
        lower: Whether to convert to lower case.
    """
    first, _, second = text.partition(SEPARATOR)
    one, other = (words_of(each, most - 1, lower=lower) for each in (first, second))
    excess = max(0, len(one) + len(other) - (most - 1))
    half = (most - 1) // 2
    if len(other) <= half:
        one = one[: len(one) - excess]
    elif len(one) <= most - 1 - half:
        other = other[: len(other) - excess]
    else:
        one, other = one[: most - 1 - half], other[:half]
    return [*one, SEPARATOR, *other]


class Vocabulary:
    """The ids of words: 0 is padding, 1 is any unknown word, others follow in their order.

        vocabulary = Vocabulary(["the", "parcel"])
        vocabulary.ids(["the", "lost", "parcel"])  # [2, 1, 3]

    Args:
        words: Different words in the order of their ids.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._ids = {word: number for number, word in enumerate(words, SPECIAL)}

    @property
    def words(self) -> list[str]:
        """The words in the order of their ids."""
        return list(self._ids)

    def __len__(self) -> int:
        """Return the number of ids, with those of padding and unknown words."""
        return SPECIAL + len(self._ids)

    def ids(self, words: Iterable[str]) -> list[int]:
        """Return the id of each word."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def grow(self, counts: Counter[str], min_count: int, most: int) -> int:
        """Add words, the most frequent first and equally frequent ones by alphabet; return how many.

        Args:
            counts: How often each word occurs in new training rows.
            min_count: How often a word must occur to be added.
            most: Maximum number of ids; existing words stay if there are more.
        """
        new = [
            word
            for word, count in counts.items()
            if count >= min_count and word not in self._ids and word != SEPARATOR
        ]
        new.sort(key=lambda word: (-counts[word], word))
        new = new[: max(0, most - len(self))]
        for word in new:
            self._ids[word] = len(self)
        return len(new)


@cache
def _unicode() -> re.Pattern[str]:
    """Return the pattern of words in any script; `re` has no class for combining marks."""
    planes = [*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)]  # no other code points are marks
    marks = [code for code in planes if unicodedata.category(chr(code)).startswith("M")]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    listed = "".join(f"{chr(start)}-{chr(stop)}" for start, stop in ranges)
    return re.compile(rf"[\w{listed}]+|[^\w\s]")
