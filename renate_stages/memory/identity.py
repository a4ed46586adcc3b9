"""Stable 128-bit ids of examples, hashed from a user's own id or from the example's content.

An id is stored with the example as two unsigned integers (metadata `id`). We print it as `renate:`
and 32 hexadecimal digits; any other text is a user's own id, which is hashed. An id reveals nothing
about the content, and an example has the same id in every update and store. The hash is 128 bits of
BLAKE2b (RFC 7693), personalized differently for own ids and for content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import METADATA, Field

if TYPE_CHECKING:
    from renate_stages.memory.store import ExampleStore

PREFIX = "renate:"  # marks our hashes, because 32 bare digits may be a user's UUID or MD5
_BLOCK_BYTES = 8 * 2**20  # bytes of examples to read at once
_JOINED_BYTES = 2048  # columns with more bytes in a row are hashed without copying them
_GIVEN = blake2b(digest_size=16, person=b"renate given")
_HASH = re.compile(f"{PREFIX}[0-9a-f]{{32}}")


def given_id(text: str) -> bytes:
    """Return the hash of a user's own id, 16 bytes.

    Raises:
        UnicodeEncodeError: If the text cannot be encoded as UTF-8.
    """
    state = _GIVEN.copy()  # in half of the time of a new state
    state.update(text.encode())
    return state.digest()


def given_ids(texts: Iterable[str]) -> np.ndarray:
    """Return the hashes of users' own ids, uint64 `(n, 2)`; raise as `given_id`."""
    copy, digests = _GIVEN.copy, []
    for text in texts:
        state = copy()
        state.update(text.encode())
        digests.append(state.digest())
    return to_array(digests)


def is_hash(text: str) -> bool:
    """Return whether a text is a hashed id as we print it, not a user's own id."""
    return _HASH.fullmatch(text) is not None


def id_of(text: str) -> bytes:
    """Return the id for a text, 16 bytes: a hash as we print it, or a user's own id."""
    return bytes.fromhex(text[len(PREFIX) :]) if is_hash(text) else given_id(text)


def printed(ids: np.ndarray) -> list[str]:
    """Return the printed form of ids, uint64 `(n, 2)`."""
    digits = np.ascontiguousarray(ids, ">u8").tobytes().hex()
    return [PREFIX + digits[start : start + 32] for start in range(0, len(digits), 32)]


def to_array(ids: Iterable[bytes]) -> np.ndarray:
    """Return ids of 16 bytes as uint64 `(n, 2)`."""
    return np.frombuffer(b"".join(ids), ">u8").astype("<u8").reshape(-1, 2)


class IdSet:
    """A set of ids, stored in 16 bytes each.

    Args:
        ids: Ids in any order, uint64 `(n, 2)`; duplicates are removed.
    """

    def __init__(self, ids: np.ndarray) -> None:
        ids = ids[np.lexsort((ids[:, 1], ids[:, 0]))]
        first = np.ones(len(ids), dtype=bool)
        first[1:] = (ids[1:] != ids[:-1]).any(axis=1)
        self.array = ids[first]

    @classmethod
    def of(cls, texts: Iterable[str]) -> IdSet:
        """Return the set of ids for texts, as in `id_of`."""
        return cls(to_array(map(id_of, texts)))

    def __len__(self) -> int:
        return len(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash(self.array.tobytes())

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet(np.concatenate([self.array, other.array]))

    def among(self, ids: np.ndarray) -> np.ndarray:
        """Return which of the given ids, uint64 `(n, 2)`, are in the set, bool `(n,)`."""
        high, low = np.ascontiguousarray(self.array.T)
        is_member = np.zeros(len(ids), dtype=bool)
        places = np.searchsorted(high, ids[:, 0])
        rows = np.arange(len(ids))
        while True:  # repeats only if two ids in the set share their first half
            rows = rows[places[rows] < len(high)]
            rows = rows[high[places[rows]] == ids[rows, 0]]
            if not len(rows):
                return is_member
            same = low[places[rows]] == ids[rows, 1]
            is_member[rows[same]] = True
            rows = rows[~same]
            places[rows] += 1


def content_ids(columns: Mapping[str, Column], fields: Mapping[str, Field]) -> np.ndarray:
    """Return the content ids of examples, uint64 `(rows, 2)`.

    Args:
        columns: The examples' fields by path.
        fields: Their dtypes and shapes, which are hashed too, because equal bytes of another dtype
            are different numbers.
    """
    paths = sorted(fields)
    head = blake2b(digest_size=16, person=b"renate content")
    head.update("; ".join(f"{path}: {fields[path]}" for path in paths).encode())
    parts = [(columns[path], fields[path].dtype) for path in paths]
    digests = []
    for row in _joined(parts) or _pieces(parts):
        one = head.copy()
        for piece in row:
            one.update(piece)
        digests.append(one.digest())
    return to_array(digests)


def stored_ids(store: ExampleStore) -> np.ndarray:
    """Return the ids of all stored rows, dead rows included, uint64 `(rows, 2)`.

    Old releases stored rows without an id; these get the id of their content.
    """
    path = METADATA + "id"
    known = store.stored_known(path)
    ids = np.zeros((len(known), 2), dtype=np.uint64)
    if known.any():
        ids[known] = store.stored_column(path)[known]
    rows = np.flatnonzero(~known)
    ids[rows] = stored_content_ids(store, rows)
    return ids


def stored_content_ids(
    store: ExampleStore, rows: np.ndarray, fields: Mapping[str, Field] | None = None
) -> np.ndarray:
    """Return the content ids of stored rows, uint64 `(n, 2)`.

    Args:
        store: The store.
        rows: Numbers of stored rows, dead rows included, int64 `(n,)`.
        fields: The fields of the content; None: inputs and targets.
    """
    ids = np.empty((len(rows), 2), dtype=np.uint64)
    if store.spec is None:
        return ids
    fields = store.spec.fields if fields is None else fields
    step = max(1, _BLOCK_BYTES * max(1, len(store)) // max(1, store.nbytes))
    for start in range(0, len(rows), step):
        columns = store.stored_columns(rows[start : start + step], fields)
        ids[start : start + step] = content_ids(columns, fields)
    return ids


def _joined(parts: Sequence[tuple[Column, np.dtype]]) -> Iterable[tuple[bytes]] | None:
    """Return the bytes of each row, joined over all columns; None if that would copy many bytes."""
    arrays = []
    for column, dtype in parts:
        if isinstance(column, Ragged) or column[:1].size * dtype.itemsize > _JOINED_BYTES:
            return None
        arrays.append(_bytes_of_rows(column, dtype))
    joined = np.ascontiguousarray(np.concatenate(arrays, axis=1))
    rows, width = joined.shape
    return zip(joined.view(f"V{width}").ravel().tolist()) if width else [(b"",)] * rows


def _pieces(parts: Sequence[tuple[Column, np.dtype]]) -> Iterator[tuple[bytes | memoryview, ...]]:
    """Yield the bytes of each row, column by column; those of a ragged row end in its length."""
    found = []
    for column, dtype in parts:
        if isinstance(column, Ragged):
            flat = np.ascontiguousarray(column.values, dtype).reshape(-1).view(np.uint8).data
            width = column.values[:1].size * dtype.itemsize
            ends = column.offsets.tolist()
            found.append([flat[a * width : b * width] for a, b in pairwise(ends)])
            found.append([(b - a).to_bytes(8, "little") for a, b in pairwise(ends)])
        else:
            found.append([row.data for row in _bytes_of_rows(column, dtype)])
    return zip(*found, strict=True)


def _bytes_of_rows(column: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the bytes of each row, uint8 `(rows, width)`."""
    values = np.ascontiguousarray(column, dtype)
    return values.reshape(-1).view(np.uint8).reshape(len(values), values[:1].nbytes)
