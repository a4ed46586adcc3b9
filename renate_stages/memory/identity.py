"""Stable ids of examples: 128 bits, from a user's own id or from an example's content.

An id is kept as two unsigned integers beside the example (metadata `id`) and written as 32
hexadecimal digits. It says nothing of the content, and the same example has the same id in every
update and store. 128 bits of BLAKE2b (RFC 7693), with a different personalisation for either kind.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import Field

_HEX = re.compile(r"[0-9a-f]{32}")


def given_id(text: str) -> str:
    """Return the id of an example that its user calls `text`, as 32 hexadecimal digits."""
    return blake2b(text.encode(), digest_size=16, person=b"renate given").hexdigest()


def is_id(text: str) -> bool:
    """Return whether a text is an id as it is written, 32 hexadecimal digits."""
    return _HEX.fullmatch(text) is not None


def content_ids(columns: Mapping[str, Column], fields: Mapping[str, Field]) -> np.ndarray:
    """Return the ids of examples by their bytes, uint64 `(rows, 2)`.

    Args:
        columns: The examples' fields by path.
        fields: Their dtypes and shapes, which count too: equal bytes may be other numbers.
    """
    paths = sorted(fields)
    head = blake2b(digest_size=16, person=b"renate content")
    head.update("; ".join(f"{path}: {fields[path]}" for path in paths).encode())
    parts = [_bytes_of_rows(columns[path], fields[path].dtype) for path in paths]
    digests = []
    for row in _joined(parts):
        one = head.copy()
        one.update(row)
        digests.append(one.digest())
    return _array(digests)


def to_array(ids: Iterable[str]) -> np.ndarray:
    """Return ids of 32 hexadecimal digits as uint64 `(n, 2)`."""
    return _array([bytes.fromhex(each) for each in ids])


def to_text(ids: np.ndarray) -> list[str]:
    """Return ids, uint64 `(n, 2)`, as 32 hexadecimal digits each."""
    raw = np.ascontiguousarray(ids, ">u8").tobytes()
    return [raw[start : start + 16].hex() for start in range(0, len(raw), 16)]


def among(ids: np.ndarray, wanted: Collection[str]) -> np.ndarray:
    """Return which of the ids, uint64 `(n, 2)`, are wanted, bool `(n,)`."""
    found = np.isin(ids[:, 0], to_array(wanted)[:, 0])  # half of an id leaves few to look at
    places = np.flatnonzero(found)
    found[places] = [each in wanted for each in to_text(ids[places])]
    return found


def _array(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), ">u8").astype("<u8").reshape(-1, 2)


def _bytes_of_rows(column: Column, dtype: np.dtype) -> np.ndarray | list[bytes]:
    """Return the bytes of each row, `(rows, width)`; of a ragged one with its length, which ends it."""
    if isinstance(column, Ragged):
        values = column.values.astype(dtype, copy=False)
        where = zip(column.offsets[:-1], column.offsets[1:], strict=True)
        return [values[a:b].tobytes() + int(b - a).to_bytes(8, "little") for a, b in where]
    values = np.ascontiguousarray(column, dtype)
    return values.reshape(-1).view(np.uint8).reshape(len(values), values[:1].nbytes)


def _joined(parts: Sequence[np.ndarray | list[bytes]]) -> Iterable[bytes | memoryview]:
    """Return the bytes of each row over all columns."""
    fixed = [part for part in parts if isinstance(part, np.ndarray)]
    if len(fixed) == len(parts):
        return map(memoryview, np.concatenate(fixed, axis=1))
    rows = [part if isinstance(part, list) else map(bytes, part) for part in parts]
    return map(b"".join, zip(*rows, strict=True))
