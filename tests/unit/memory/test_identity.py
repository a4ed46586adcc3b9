"""Ids are 128 bits of BLAKE2b over a text, or over the bytes of all fields of an example."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest

from renate_stages.memory import Ragged
from renate_stages.memory.identity import content_ids, given_id, given_ids, to_array
from renate_stages.memory.spec import Field

NOISE = np.random.default_rng(0)


def test_own_ids_are_hashed_alike_one_by_one_and_together():
    texts = ["", "17", "größe/図.jpg", "x" * 10_000]
    expected = [blake2b(t.encode(), digest_size=16, person=b"renate given").digest() for t in texts]
    assert [given_id(text) for text in texts] == expected
    assert (given_ids(iter(texts)) == to_array(expected)).all() and given_ids([]).shape == (0, 2)


def whole(dtype, *shape):
    return NOISE.integers(0, 100, (20, *shape)).astype(dtype)


def rows(dtype, longest, *shape):
    lengths = [0, *NOISE.integers(0, longest, 19)]
    return Ragged.of([NOISE.integers(0, 100, (n, *shape)).astype(dtype) for n in lengths])


@pytest.mark.parametrize(
    "inputs",
    [
        {"inputs": whole("uint8", 3)},
        {"inputs": whole("uint8", 3, 40, 40)},  # wide rows are not joined
        {"inputs": whole("float32")[::-1]},
        {"inputs.a": whole("float32", 2), "inputs.b": whole("int64", 700)},
        {"inputs": whole("float32", 0)},
        {"inputs": rows("int64", 9)},
        {"inputs": rows("uint8", 9000)},
        {"inputs.a": rows("float32", 9, 3), "inputs.b": whole("bool")},
        {"inputs": rows("int32", 9).part(3, 20)},
    ],
)
def test_content_ids_hash_the_bytes_of_all_fields_in_order(inputs):
    count = len(next(iter(inputs.values())))
    columns = {"targets": whole("int64")[:count], **inputs}
    fields = {path: Field.of(path, column) for path, column in columns.items()}
    head = "; ".join(f"{path}: {fields[path]}" for path in sorted(fields)).encode()
    expected = []
    for row in range(count):
        content = head
        for path in sorted(columns):
            content += columns[path][row].tobytes()
            if isinstance(columns[path], Ragged):
                content += len(columns[path][row]).to_bytes(8, "little")
        expected.append(blake2b(content, digest_size=16, person=b"renate content").digest())
    assert (content_ids(columns, fields) == to_array(expected)).all()
