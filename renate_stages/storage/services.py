"""Storage services behind fsspec: S3, local folders, and all others."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from renate_stages.errors import InvalidUrlError, MissingExtraError
from renate_stages.files import sha256
from renate_stages.storage import checksums
from renate_stages.storage.checksums import Content

_CURE = "use s3://bucket/folder, a URL of another protocol of fsspec, or a local path"
_S3 = ("s3", "s3a")
_OBJECT_STORES = ("gs", "gcs", "abfs", "abfss", "az", "adl")


class Service:
    """An fsspec file system; paths are in its notation.

    Args:
        fs: The file system.
    """

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self.protocol: str = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]

    def ask(self, path: str) -> Mapping[str, Any]:
        """Return the current details of a file: `size`, `type`, and a checksum if the service has one.

        Raises:
            FileNotFoundError: If the file does not exist.
        """
        self.fs.invalidate_cache()
        return self.fs.info(path)

    def find(self, path: str) -> dict[str, dict[str, Any]]:
        """Return the current details of each file under a folder, by path."""
        self.fs.invalidate_cache()
        listed = self.fs.find(path, detail=True)
        return {
            name: answer
            for name, answer in sorted(listed.items())
            if answer["type"] == "file" and not name.endswith("/")  # S3's console makes folders
        }

    def read(self, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a file that is not empty."""
        return self.fs.cat_file(path, start=0, end=limit)

    def write(self, path: str, content: Content) -> Mapping[str, Any] | None:
        """Write a file atomically; return the service's details of it, or None if it sends none."""
        self._in_place(path, lambda place: self._write(place, content))
        return None

    def fetch(self, path: str, target: Path) -> None:
        """Download a file to a local path."""
        self.fs.get_file(path, str(target))

    def copy(self, source: str, path: str) -> None:
        """Copy a file within the service, without a download."""
        self._in_place(path, lambda place: self.fs.cp_file(source, place))

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.fs.rm_file(path)

    def agrees(self, path: str, answer: Mapping[str, Any], content: Content) -> bool | None:
        """Return whether a file has this content; None if the service has no checksum."""
        if self.protocol != "memory":
            return None
        expected = content if isinstance(content, bytes) else content.read_bytes()
        return self.fs.cat_file(path) == expected

    def _write(self, path: str, content: Content) -> None:
        if isinstance(content, bytes):
            self.fs.pipe_file(path, content)
        else:
            self.fs.put_file(str(content), path)

    def _in_place(self, path: str, write: Callable[[str], None]) -> None:
        if self.protocol not in _OBJECT_STORES:  # making a folder there might create a bucket
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        write(path)


class Folder(Service):
    """Local files; written under a temporary name, then renamed."""

    def agrees(self, path: str, answer: Mapping[str, Any], content: Content) -> bool | None:
        expected = (
            hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256(content)
        )
        return sha256(Path(path)) == expected

    def _in_place(self, path: str, write: Callable[[str], None]) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(target)
        try:
            write(temporary.as_posix())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


class S3(Service):
    """S3: an object becomes visible when its upload is complete, and has an ETag."""

    def ask(self, path: str) -> Mapping[str, Any]:
        bucket, key, _ = self.fs.split_path(path)
        head = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        return {**head, "size": head["ContentLength"], "type": "file"}

    def write(self, path: str, content: Content) -> Mapping[str, Any] | None:
        if isinstance(content, Path) and (size := content.stat().st_size) >= 2 * checksums.PART:
            self.fs.put_file(str(content), path, chunksize=checksums.part_size(size))
            return None
        bucket, key, _ = self.fs.split_path(path)
        body = content if isinstance(content, bytes) else content.read_bytes()
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        answer = self.fs.call_s3(
            "put_object",
            Bucket=bucket,
            Key=key,
            Body=body,
            ContentMD5=base64.b64encode(digest).decode(),  # S3 refuses content with another MD5
        )
        return {**answer, "size": len(body)}

    def copy(self, source: str, path: str) -> None:
        self.fs.cp_file(source, path)

    def agrees(self, path: str, answer: Mapping[str, Any], content: Content) -> bool | None:
        return checksums.agrees_with_etag(answer, content)


def at(url: str | Path) -> tuple[str, Service, str]:
    """Return a URL without its final slash, its service, and its path in that service.

    Raises:
        InvalidUrlError: If the protocol is unknown, its package is not installed, or the URL has no
            bucket.
        MissingExtraError: If the URL is in S3 and the extra `s3` is not installed.
    """
    import fsspec

    protocol, separator, rest = str(url).rpartition("://")
    shown = protocol + separator + (rest.rstrip("/") or rest)
    protocol = protocol or "file"
    if protocol not in fsspec.available_protocols():
        raise InvalidUrlError(shown, f"the protocol {protocol!r} is unknown", _CURE)
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in _S3:
        # s3fs retries the parts of a large file; botocore's own retries would multiply ours.
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
        options["max_concurrency"] = 4
    try:
        fs, root = fsspec.url_to_fs(shown, **options)
    except ImportError as error:
        if protocol in _S3:
            raise MissingExtraError(shown, "s3fs", "s3") from error
        cure = "install the package for this protocol"
        raise InvalidUrlError(shown, str(error), cure) from error
    except ValueError as error:
        raise InvalidUrlError(shown, str(error), _CURE) from error
    root = root.rstrip("/")
    if protocol in (*_S3, *_OBJECT_STORES) and not root.split("/")[0]:
        raise InvalidUrlError(shown, "the URL has no bucket", "write s3://bucket/folder")
    if protocol in _S3:
        fs.retries = 3
        return shown, S3(fs), root
    return shown, Folder(fs) if protocol == "file" else Service(fs), root


def temporary_path(path: Path) -> Path:
    """Return the path at which this thread writes a file before it is renamed to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
