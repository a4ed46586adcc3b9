"""Files under a URL: in S3, behind any fsspec protocol, or in a local folder.

Uploads are verified at the service, downloads before they are renamed to their final name. So an
incomplete file is never visible: S3 shows an object only when it is complete, and local files are
renamed. Local files are only read during an upload.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renate_stages.errors import (
    OversizedFileError,
    RemoteRefusedError,
)
from renate_stages.files import Entry
from renate_stages.storage import services, transfer
from renate_stages.storage.parallel import in_parallel
from renate_stages.storage.progress import Progress
from renate_stages.storage.retries import attempt

READ_BYTES = 256 * 2**20
"""Largest file, in bytes, to read into memory; a `state.json` of a million files has 150 MB."""


@dataclass(frozen=True)
class Traffic:
    """Transferred files and bytes.

    Args:
        files: Number of files; skipped files, and files copied within the service, do not count.
        bytes: Their total size, without protocol overhead.
    """

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.files + other.files, self.bytes + other.bytes)


class Storage:
    """The files under a URL; make one with `Storage.at`. Thread-safe.

    Names of files are POSIX paths relative to the URL.

    Args:
        url: The URL as the user wrote it, without a final slash.
        service: The service that stores the files.
        root: The URL's path in that service.

    Example:
        >>> states = Storage.at("s3://bucket/states")
        >>> states.put({"1/state.json": Path("state/state.json")})
        Traffic(files=1, bytes=11032)
    """

    def __init__(self, url: str, service: services.Service, root: str) -> None:
        self.url = url
        self._service = service
        self._root = root

    @classmethod
    def at(cls, url: str | Path) -> Storage:
        """Return the storage at a URL; sends no request yet.

        Args:
            url: `s3://bucket/prefix`, a URL of another fsspec protocol, or a local path.

        Raises:
            InvalidUrlError: If the protocol is unknown, its package is not installed, or the URL has
                no bucket.
            MissingExtraError: If the URL is in S3 and the extra `s3` is not installed.
        """
        return cls(*services.at(url))

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def child(self, name: str) -> Storage:
        """Return the storage of a folder under this URL."""
        return Storage(self.url_of(name), self._service, self._path(name))

    def url_of(self, name: str) -> str:
        """Return the URL of a file or folder."""
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{name}"

    def shares_service_with(self, other: Storage) -> bool:
        """Return whether the service can copy between the two without a download."""
        return self._service.protocol == other._service.protocol

    # -- requests about files ----------------------------------------------------------------------

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the current size of each file in bytes, by name.

        Args:
            prefix: A folder to list; names stay relative to this storage's URL.

        Raises:
            RemoteRefusedError: If listing is not permitted, or the bucket does not exist.
            RemoteUnreachableError: If the service does not respond.
        """
        return {name: int(answer["size"]) for name, answer in self._listed(prefix).items()}

    def sizes_in(self, folders: Collection[str]) -> dict[str, int]:
        """Return the same as `sizes` for several folders, which are listed in parallel."""
        listed = self._listed_in(folders)
        return {name: int(answer["size"]) for name, answer in listed.items()}

    def versions(self) -> dict[str, dict[str, Any]]:
        """Return `size` and `mark` of each file by name; the mark changes with the content.

        The mark is the ETag if the service has one, otherwise the modification time.
        """
        return {
            name: {"size": int(answer["size"]), "mark": _mark(answer)}
            for name, answer in self._listed("").items()
        }

    def has(self, name: str) -> bool:
        """Return whether a file of this name exists."""
        path = self._path(name)
        try:
            answer = attempt("looking for", self.url_of(name), lambda: self._service.ask(path))
        except FileNotFoundError:
            return False
        return answer["type"] == "file"

    def same(
        self,
        files: Mapping[str, Path],
        folders: Collection[str] = ("",),
        doubted: Collection[str] | None = None,
    ) -> set[str]:
        """Return the names of the files that the storage already has with the same content.

        Args:
            files: Local files by name.
            folders: The folders of these names, to list only those.
            doubted: Names for which a checksum is required. Other names count as the same if the
                size is equal and the service has no checksum. None: all names.
        """
        listed = self._listed_in(folders)
        same: set[str] = set()

        def compare(name: str) -> None:
            path, content = self._path(name), files[name]
            agrees = self._service.agrees(path, listed[name], content)
            # A listing does not tell whether an object is encrypted, so that its ETag is no MD5.
            if agrees is False:
                with suppress(FileNotFoundError):
                    details = attempt(
                        "looking up", self.url_of(name), lambda: self._service.ask(path)
                    )
                    agrees = self._service.agrees(path, details, content)
            if agrees or (agrees is None and doubted is not None and name not in doubted):
                same.add(name)

        sizes = {name: path.stat().st_size for name, path in files.items() if name in listed}
        in_parallel(compare, [n for n, size in sizes.items() if listed[n]["size"] == size])
        return same

    # -- whole files -------------------------------------------------------------------------------

    def read(self, name: str, limit: int = READ_BYTES) -> bytes:
        """Return the content of a file.

        Args:
            name: Name of the file.
            limit: Maximum size in bytes; larger files are not read.

        Raises:
            MissingFileError: If the file does not exist.
            OversizedFileError: If it is larger than the limit.
        """
        path, url = self._path(name), self.url_of(name)
        try:
            size = attempt("looking up", url, lambda: self._service.ask(path))["size"]
            content = b""
            if 0 < size <= limit:  # read one byte more, in case a larger file has replaced it
                content = attempt("reading", url, lambda: self._service.read(path, limit + 1))
                size = len(content)
        except FileNotFoundError as error:
            raise transfer.missing(url) from error
        if size > limit:
            raise OversizedFileError(url, size, limit)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file, atomically and verified."""
        transfer.send(self._service, self._path(name), self.url_of(name), content)

    def put(self, files: Mapping[str, Path], what: str = "files") -> Traffic:
        """Upload files in parallel; each is verified at the service.

        If a file fails finally, no further uploads are started; completed uploads are kept.

        Args:
            files: Local files by their name in the storage, in the order of upload.
            what: Name of the files in the progress messages.

        Returns:
            The uploaded files and bytes.

        Raises:
            RemoteRefusedError: If the service refuses a request.
            RemoteUnreachableError: If the service does not respond.
            DamagedTransferError: If the uploaded content differed in every attempt.
        """
        sizes = {name: path.stat().st_size for name, path in files.items()}
        with Progress("uploading", what, self.url, len(files), sum(sizes.values())) as progress:

            def send(name: str) -> None:
                path, url = self._path(name), self.url_of(name)
                transfer.send(self._service, path, url, files[name])
                progress.add(sizes[name])

            in_parallel(send, files)
        return Traffic(len(files), sum(sizes.values()))

    def get(
        self, files: Mapping[str, Path], entries: Mapping[str, Entry], what: str = "files"
    ) -> Traffic:
        """Download files in parallel; each gets its name when it is complete and verified.

        Args:
            files: Local paths by name.
            entries: Expected `size` and, if known, `sha256` of each file; without `sha256` the file
                is compared with the service's checksum.
            what: Name of the files in the progress messages.

        Returns:
            The downloaded files and bytes.

        Raises:
            MissingFileError: If a file does not exist.
            RemoteRefusedError: If the service refuses a request.
            RemoteUnreachableError: If the service does not respond.
            DamagedTransferError: If a file's content differed in every attempt.
        """
        size = sum(entries[name]["size"] for name in files)
        with Progress("downloading", what, self.url, len(files), size) as progress:

            def fetch(name: str) -> None:
                path, url = self._path(name), self.url_of(name)
                transfer.fetch(self._service, path, url, files[name], entries[name])
                progress.add(entries[name]["size"])

            in_parallel(fetch, files)
        return Traffic(len(files), size)

    def copy(self, source: Storage, files: Mapping[str, str]) -> Traffic:
        """Copy files from another storage at the same service, without a download.

        Args:
            source: The other storage.
            files: Name in the other storage by name in this one.

        Raises:
            MissingFileError: If a file does not exist.
            RemoteRefusedError: If the service refuses a request.
            RemoteUnreachableError: If the service does not respond.
        """

        def copy(name: str) -> None:
            origin, target = source._path(files[name]), self._path(name)
            try:
                attempt("copying to", self.url_of(name), lambda: self._service.copy(origin, target))
            except FileNotFoundError as error:
                raise transfer.missing(source.url_of(files[name])) from error

        if not self.shares_service_with(source):
            reason = f"{source.url} is at another service."
            raise RemoteRefusedError(
                "copying to", self.url, reason, "download the files, then upload them"
            )
        in_parallel(copy, files)
        return Traffic()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing files are ignored."""

        def remove(name: str) -> None:
            path = self._path(name)
            with suppress(FileNotFoundError, KeyError):
                attempt("removing", self.url_of(name), lambda: self._service.remove(path))

        in_parallel(remove, list(names))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _listed_in(self, folders: Collection[str]) -> dict[str, dict[str, Any]]:
        by_folder: dict[str, dict[str, dict[str, Any]]] = {}

        def list_one(folder: str) -> None:
            by_folder[folder] = self._listed(folder)

        in_parallel(list_one, folders)
        return {
            name: answer
            for folder in sorted(by_folder)
            for name, answer in by_folder[folder].items()
        }

    def _listed(self, prefix: str) -> dict[str, dict[str, Any]]:
        path = self._path(prefix).rstrip("/")
        url = self.url_of(prefix) if prefix else self.url
        try:
            listed = attempt("listing", url, lambda: self._service.find(path))
        except FileNotFoundError:
            return {}
        start = len(self._root) + 1
        return {name[start:]: answer for name, answer in listed.items() if name != self._root}


def _mark(answer: Mapping[str, Any]) -> str:
    """Return the ETag or the time of a file from a service's details; services use various names."""
    for name in ("ETag", "etag", "mtime", "updated", "last_modified", "LastModified", "created"):
        if answer.get(name):
            return str(answer[name])
    return ""
