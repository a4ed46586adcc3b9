"""Compare a service's checksum of a file with the local content.

S3 gives an ETag: the MD5 of what was put at once, the MD5 of the parts' MD5s of what was put in
parts; of what it encrypts with a key of KMS or of the customer it is neither, and proves nothing.
Local files and memory are read again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PART = 16 * 2**20
"""Bytes of a part of a large file; a file of under two parts is put at once."""
_MOST_PARTS = 10_000

Content = Path | bytes


def part_size(size: int) -> int:
    """Return the bytes of each part that a file of this size is put in."""
    return max(PART, -(-size // _MOST_PARTS))


def size_of(content: Content) -> int:
    """Return the bytes of a local file, or of content at hand."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def agrees_with_etag(answer: Mapping[str, Any], content: Content) -> bool | None:
    """Compare content with an answer of S3 on an object; None where its ETag proves nothing.

    Args:
        answer: With `ETag`, and where the service tells its encryption, that.
        content: What should lie there.
    """
    encryption = str(answer.get("ServerSideEncryption", ""))
    if encryption.startswith("aws:kms") or answer.get("SSECustomerAlgorithm"):
        return None
    found = re.fullmatch(r'"?([0-9a-f]{32})(?:-(\d+))?"?', str(answer.get("ETag", "")))
    if found is None:
        return None
    digest, parts = found.groups()
    if parts is None:
        return _md5(content) == digest
    size = size_of(content)
    if int(parts) != -(-size // part_size(size)):
        return None  # put by another tool, in parts of another size
    of_parts = b"".join(
        hashlib.md5(part, usedforsecurity=False).digest() for part in _parts(content)
    )
    return hashlib.md5(of_parts, usedforsecurity=False).hexdigest() == digest


def _md5(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _parts(content: Content) -> Iterator[bytes]:
    size = part_size(size_of(content))
    if isinstance(content, bytes):
        for start in range(0, len(content), size):
            yield content[start : start + size]
        return
    with content.open("rb") as stream:
        while part := stream.read(size):
            yield part
