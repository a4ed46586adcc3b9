"""Transfer channels, checkpoints and artifacts between S3 and a container."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

IN_THREAD = TransferConfig(use_threads=False)


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class Storage:
    """S3 as a job uses it, with the credentials of its role.

    Args:
        s3: boto3 client.
    """

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def keys(self, uri: str) -> list[str]:
        """List the objects under a prefix; no objects if the bucket does not exist."""
        bucket, prefix = split(uri)
        found = []
        with suppress(self.s3.exceptions.NoSuchBucket):
            for page in self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix
            ):
                found += [each["Key"] for each in page.get("Contents", [])]
        return [key for key in found if not key.endswith("/")]

    def download(self, uri: str, to: Path) -> None:
        bucket, key = split(uri)
        to.parent.mkdir(parents=True, exist_ok=True)
        self.s3.download_file(bucket, key, str(to), Config=IN_THREAD)

    def upload(self, path: Path, uri: str) -> None:
        bucket, key = split(uri)
        self.s3.upload_file(str(path), bucket, key, Config=IN_THREAD)

    def download_channel(
        self, channel: dict[str, Any], folder: Path, host: int, hosts: int
    ) -> None:
        """Download a host's part of a channel: all objects, or its shard of them."""
        folder.mkdir(parents=True)
        source = channel["DataSource"]["S3DataSource"]
        objects = list(self._objects(source))
        if source.get("S3DataDistributionType") == "ShardedByS3Key":
            objects = objects[host::hosts]
        for uri, name in objects:
            self.download(uri, folder / name)

    def _objects(self, source: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the address and the file name of each object of a channel."""
        uri = source["S3Uri"]
        bucket, key = split(uri)
        if source["S3DataType"] == "ManifestFile":
            first, *names = json.load(self.s3.get_object(Bucket=bucket, Key=key)["Body"])
            yield from ((first["prefix"] + name, name) for name in names)
            return
        for each in self.keys(uri):
            whole = key.endswith("/") or each.removeprefix(key).startswith("/")
            base = key.rstrip("/") if whole else key.rpartition("/")[0]
            yield f"s3://{bucket}/{each}", each.removeprefix(base).lstrip("/")

    def download_folder(self, uri: str, folder: Path) -> None:
        """Download all objects under an address, which counts as a folder."""
        prefix = uri.rstrip("/") + "/"
        bucket, key = split(prefix)
        for each in self.keys(prefix):
            self.download(f"s3://{bucket}/{each}", folder / each.removeprefix(key))

    def upload_folder(self, folder: Path, uri: str) -> None:
        for path in files(folder):
            self.upload(path, f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}")

    def upload_archive(self, folders: list[Path], uri: str) -> None:
        """Pack the files of all hosts; of files with the same name, only the first host's."""
        packed = set()
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w:gz") as tar:
                for folder in folders:
                    for path in files(folder):
                        name = path.relative_to(folder).as_posix()
                        if name not in packed:
                            tar.add(path, arcname=name)
                        packed.add(name)
            archive.seek(0)
            bucket, key = split(uri)
            self.s3.upload_fileobj(archive, bucket, key, Config=IN_THREAD)


class CheckpointSync:
    """Uploads the files of a folder that changed since the last upload; deletes nothing.

    A file may be uploaded while it is written, as by the real service.
    """

    def __init__(self, storage: Storage, folder: Path, uri: str) -> None:
        self.storage, self.folder, self.uri = storage, folder, uri.rstrip("/")
        self._seen: dict[Path, tuple[int, int]] = {}

    def restore(self) -> None:
        self.storage.download_folder(self.uri, self.folder)
        self._seen = {path: _version(path) for path in files(self.folder)}

    def upload(self) -> None:
        for path in files(self.folder):
            with suppress(FileNotFoundError):  # renamed or removed meanwhile
                version = _version(path)
                if self._seen.get(path) != version:
                    name = path.relative_to(self.folder).as_posix()
                    self.storage.upload(path, f"{self.uri}/{name}")
                    self._seen[path] = version


def files(folder: Path) -> list[Path]:
    """List the files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
