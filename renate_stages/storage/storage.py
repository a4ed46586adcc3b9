"""The files under a URL: in S3, behind any fsspec protocol, or in a local folder.

What is sent is verified where it arrived, what is fetched before it takes its place. A file is
never seen half: an object of S3 appears when it is complete, a local file is renamed in. Local files
that are sent are only read.
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
"""The largest file that is read into memory. A `state.json` of a million files has 150 MB."""


@dataclass(frozen=True)
class Traffic:
    """What travelled.

    Args:
        files: How many files; what was there already, or copied there, is none.
        bytes: Their content, without what the protocol adds.
    """

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.files + other.files, self.bytes + other.bytes)


class Storage:
    """The files under a URL; to be had by `Storage.at`, and usable from many threads.

    Names of files are relative to it, in POSIX form.

    Args:
        url: As the user wrote it, without a last slash.
        service: Keeps them.
        root: The URL as the service names it.

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
        """Return what lies under a URL; nothing is asked of the service yet.

        Args:
            url: `s3://bucket/prefix`, a URL of another protocol of fsspec, or a local path.

        Raises:
            InvalidUrlError: If its protocol is unknown, lacks its package, or it names no bucket.
            MissingExtraError: If it is in S3 and the extra `s3` is not installed.
        """
        return cls(*services.at(url))

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def child(self, name: str) -> Storage:
        """Return what lies under a folder of it."""
        return Storage(self.url_of(name), self._service, self._path(name))

    def url_of(self, name: str) -> str:
        """Return the URL of a file or folder of it."""
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{name}"

    def shares_service_with(self, other: Storage) -> bool:
        """Return whether the service can copy from one to the other by itself."""
        return self._service.protocol == other._service.protocol

    # -- asking ------------------------------------------------------------------------------------

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the bytes of each file there is now, by name.

        Args:
            prefix: A folder of it, to list that alone; names stay relative to the whole.

        Raises:
            RemoteRefusedError: If it may not be listed, or there is no such bucket.
            RemoteUnreachableError: If the service does not answer.
        """
        return {name: int(answer["size"]) for name, answer in self._listed(prefix).items()}

    def sizes_in(self, folders: Collection[str]) -> dict[str, int]:
        """Return what `sizes` does for each of some folders of it, asking for several at a time."""
        found = self._listed_in(folders)
        return {name: int(answer["size"]) for name, answer in found.items()}

    def versions(self) -> dict[str, dict[str, Any]]:
        """Return of each file, by name, its `size` and a `mark` that changes with its content.

        The mark is the ETag where the service gives one, else the time of the last change.
        """
        return {
            name: {"size": int(answer["size"]), "mark": _mark(answer)}
            for name, answer in self._listed("").items()
        }

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name now."""
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
        """Return the names under which these local files' content is there already.

        Args:
            files: Local files by name.
            folders: Where the names are, to list these alone.
            doubted: Names for which the service must prove the content; the others count as the
                same where it has a file of equal size and tells nothing of the content. None: all.
        """
        listed = self._listed_in(folders)
        found: set[str] = set()

        def compare(name: str) -> None:
            path, content = self._path(name), files[name]
            agrees = self._service.agrees(path, listed[name], content)
            if agrees is False:  # a list does not say what is encrypted, whose ETag is no MD5
                with suppress(FileNotFoundError):
                    asked = attempt(
                        "asking for", self.url_of(name), lambda: self._service.ask(path)
                    )
                    agrees = self._service.agrees(path, asked, content)
            if agrees or (agrees is None and doubted is not None and name not in doubted):
                found.add(name)

        sizes = {name: path.stat().st_size for name, path in files.items() if name in listed}
        in_parallel(compare, [n for n, size in sizes.items() if listed[n]["size"] == size])
        return found

    # -- whole files -------------------------------------------------------------------------------

    def read(self, name: str, limit: int = READ_BYTES) -> bytes:
        """Return the content of a file.

        Args:
            name: Of the file.
            limit: Bytes; of a larger file no more than these are fetched.

        Raises:
            MissingFileError: If there is none.
            OversizedFileError: If it is larger than the limit.
        """
        path, url = self._path(name), self.url_of(name)
        try:
            size = attempt("asking for", url, lambda: self._service.ask(path))["size"]
            content = b""
            if 0 < size <= limit:  # it may be replaced by a larger one before it is read
                content = attempt("reading", url, lambda: self._service.read(path, limit + 1))
                size = len(content)
        except FileNotFoundError as error:
            raise transfer.missing(url) from error
        if size > limit:
            raise OversizedFileError(url, size, limit)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Make a file of this content, or replace it; whole, and verified."""
        transfer.send(self._service, self._path(name), self.url_of(name), content)

    def put(self, files: Mapping[str, Path], what: str = "files") -> Traffic:
        """Send files, many at a time; each is verified after it arrived.

        When one fails for good no further one is begun, and those that arrived stay.

        Args:
            files: Local files by the name that each gets; in the order in which they are begun.
            what: What they are, for the progress.

        Raises:
            RemoteRefusedError: If the service refuses.
            RemoteUnreachableError: If it does not answer.
            DamagedTransferError: If other bytes lie there than were sent, each time.
        """
        sizes = {name: path.stat().st_size for name, path in files.items()}
        with Progress("sending", what, self.url, len(files), sum(sizes.values())) as progress:

            def send(name: str) -> None:
                path, url = self._path(name), self.url_of(name)
                transfer.send(self._service, path, url, files[name])
                progress.add(sizes[name])

            in_parallel(send, files)
        return Traffic(len(files), sum(sizes.values()))

    def get(
        self, files: Mapping[str, Path], entries: Mapping[str, Entry], what: str = "files"
    ) -> Traffic:
        """Fetch files, many at a time; each takes its place when it is whole and as it must be.

        Args:
            files: Local places by the name of each.
            entries: What each must be: its `size`, and its `sha256` where that is known; else it
                is compared with what the service tells of its content.
            what: What they are, for the progress.

        Raises:
            MissingFileError: If one is not there.
            RemoteRefusedError: If the service refuses.
            RemoteUnreachableError: If it does not answer.
            DamagedTransferError: If one is not what it must be, each time.
        """
        size = sum(entries[name]["size"] for name in files)
        with Progress("fetching", what, self.url, len(files), size) as progress:

            def fetch(name: str) -> None:
                path, url = self._path(name), self.url_of(name)
                transfer.fetch(self._service, path, url, files[name], entries[name])
                progress.add(entries[name]["size"])

            in_parallel(fetch, files)
        return Traffic(len(files), size)

    def copy(self, source: Storage, files: Mapping[str, str]) -> Traffic:
        """Copy files of another storage of the same service, which does it by itself.

        Args:
            source: Where they lie.
            files: The name of each there, by the name that it gets here.

        Raises:
            MissingFileError: If one is not there.
            RemoteRefusedError: If the service refuses.
            RemoteUnreachableError: If it does not answer.
        """

        def copy(name: str) -> None:
            there, here = source._path(files[name]), self._path(name)
            try:
                attempt("copying to", self.url_of(name), lambda: self._service.copy(there, here))
            except FileNotFoundError as error:
                raise transfer.missing(source.url_of(files[name])) from error

        if not self.shares_service_with(source):
            reason = f"{source.url} is in another service."
            raise RemoteRefusedError(
                "copying to", self.url, reason, "download the files, then upload them"
            )
        in_parallel(copy, files)
        return Traffic()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is none to remove."""

        def remove(name: str) -> None:
            path = self._path(name)
            with suppress(FileNotFoundError, KeyError):
                attempt("removing", self.url_of(name), lambda: self._service.remove(path))

        in_parallel(remove, list(names))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _listed_in(self, folders: Collection[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, dict[str, Any]]] = {}

        def ask(folder: str) -> None:
            found[folder] = self._listed(folder)

        in_parallel(ask, folders)
        return {name: answer for folder in sorted(found) for name, answer in found[folder].items()}

    def _listed(self, prefix: str) -> dict[str, dict[str, Any]]:
        path = self._path(prefix).rstrip("/")
        url = self.url_of(prefix) if prefix else self.url
        try:
            found = attempt("listing", url, lambda: self._service.find(path))
        except FileNotFoundError:
            return {}
        start = len(self._root) + 1
        return {name[start:]: answer for name, answer in found.items() if name != self._root}


def _mark(answer: Mapping[str, Any]) -> str:
    """Return what tells one content of a file from its next, by the names that services use."""
    for name in ("ETag", "etag", "mtime", "updated", "last_modified", "LastModified", "created"):
        if answer.get(name):
            return str(answer[name])
    return ""
