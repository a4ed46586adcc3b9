"""Compare a service's checksum of a file with the local content.

The checksum of S3 is the ETag: the MD5 of an object that was uploaded in one request, or the MD5 of
the parts' MD5s after a multipart upload. For objects encrypted with a KMS or customer key it is
neither, and cannot be used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PART = 16 * 2**20
"""Part size of a multipart upload in bytes; files smaller than two parts use one request."""
_MOST_PARTS = 10_000

Content = Path | bytes


def part_size(size: int) -> int:
    """Return the part size in bytes for a file of this size in bytes."""
    return max(PART, -(-size // _MOST_PARTS))


def size_of(content: Content) -> int:
    """Return the size of a local file or of bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def agrees_with_etag(answer: Mapping[str, Any], content: Content) -> bool | None:
    """Compare content with the ETag of an S3 object.

    Args:
        answer: S3's response, with `ETag` and, if S3 sends them, the headers about encryption.
        content: The expected content.

    Returns:
        Whether they agree; None if the ETag is not a checksum of the content.
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
        return None  # uploaded by another tool with another part size
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
