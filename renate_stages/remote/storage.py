"""The files under a URL: in S3, behind any of fsspec's protocols, or in a folder here.

What is sent is verified where it arrived, what is fetched before it takes its place. A file is
never seen half: an object of S3 appears when it is complete, a local file is renamed in. Local files
that are sent are only read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renate_stages import files as local_files
from renate_stages.errors import (
    DamagedTransferError,
    InvalidUrlError,
    MissingExtraError,
    MissingFileError,
    RemoteRefusedError,
)
from renate_stages.files import Entry
from renate_stages.remote import checksums
from renate_stages.remote.checksums import Content
from renate_stages.remote.progress import Progress
from renate_stages.remote.retries import attempt

WORKERS = 8
"""Files on their way at a time; each holds at most `2 * checksums.PART` bytes, or four parts."""
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
"""Protocols without folders: making one might make a bucket."""


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
        fs: The file system of fsspec that reaches it.
        root: The URL as this file system names it.

    Example:
        >>> states = Storage.at("s3://bucket/states")
        >>> states.put({"1/state.json": Path("state/state.json")})
        Traffic(files=1, bytes=11032)
    """

    def __init__(self, url: str, fs: Any, root: str) -> None:
        self.url = url
        self._fs = fs
        self._root = root
        protocol = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
        self._protocol: str = protocol[0]

    @classmethod
    def at(cls, url: str | Path) -> Storage:
        """Return what lies under a URL; nothing is asked of the service yet.

        Args:
            url: `s3://bucket/prefix`, a URL of another protocol of fsspec, or a local path.

        Raises:
            InvalidUrlError: If its protocol is unknown, lacks its package, or it names no bucket.
            MissingExtraError: If it is in S3 and the extra `s3` is not installed.
        """
        import fsspec

        protocol, separator, rest = str(url).rpartition("://")
        shown = protocol + separator + (rest.rstrip("/") or rest)
        protocol = protocol or "file"
        if protocol not in fsspec.available_protocols():
            raise InvalidUrlError(shown, f"the protocol {protocol!r} is unknown", _CURE)
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if protocol in ("s3", "s3a"):
            # s3fs repeats the parts of a large file; botocore's own repeating would multiply ours.
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
            options["max_concurrency"] = 4
        try:
            fs, root = fsspec.url_to_fs(shown, **options)
        except ImportError as error:
            if protocol in ("s3", "s3a"):
                raise MissingExtraError(shown, "s3fs", "s3") from error
            cure = "install that package beside renate-stages"
            raise InvalidUrlError(shown, str(error), cure) from error
        except ValueError as error:
            raise InvalidUrlError(shown, str(error), _CURE) from error
        if protocol in ("s3", "s3a"):
            fs.retries = 3
        root = root.rstrip("/")
        if not root.split("/")[0] and protocol in _BUCKETS - {"memory"}:
            raise InvalidUrlError(shown, "it names no bucket", "write s3://bucket/folder")
        return cls(shown, fs, root)

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def child(self, name: str) -> Storage:
        """Return what lies under a folder of it."""
        return Storage(self.url_of(name), self._fs, self._path(name))

    def url_of(self, name: str) -> str:
        """Return the URL of a file or folder of it."""
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{name}"

    def shares_service_with(self, other: Storage) -> bool:
        """Return whether the service can copy from one to the other by itself."""
        return self._protocol == other._protocol

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
        self._fs.invalidate_cache()
        try:
            answer = attempt("looking for", self.url_of(name), lambda: self._ask(name))
        except FileNotFoundError:
            return False
        return answer["type"] == "file"

    def same(self, files: Mapping[str, Path]) -> set[str]:
        """Return the names under which these local files' content lies already.

        Where the service tells nothing of the content, a file of equal size is not the same.
        """
        listed = self._listed("")
        paths = {
            name: path
            for name, path in files.items()
            if name in listed and listed[name]["size"] == path.stat().st_size
        }
        return {name for name, path in paths.items() if self._agrees(name, listed[name], path)}

    # -- whole files -------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            MissingFileError: If there is none.
        """
        url = self.url_of(name)
        try:
            return attempt("reading", url, lambda: self._fs.cat_file(self._path(name)))
        except FileNotFoundError as error:
            raise _missing(url) from error

    def write(self, name: str, content: bytes) -> None:
        """Make a file of this content, or replace it; whole, and verified."""
        self._send(name, content)

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
                self._send(name, files[name])
                progress.add(sizes[name])

            _in_parallel(send, files)
        return Traffic(len(files), sum(sizes.values()))

    def get(
        self, files: Mapping[str, Path], entries: Mapping[str, Entry], what: str = "files"
    ) -> Traffic:
        """Fetch files, many at a time; each takes its place when it is whole and as it must be.

        Args:
            files: Local places by the name of each.
            entries: What each must be: its `size`, and its `sha256` where that is known.
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
                self._fetch(name, files[name], entries[name])
                progress.add(entries[name]["size"])

            _in_parallel(fetch, files)
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
            there = source._path(files[name])
            try:
                attempt(
                    "copying to",
                    self.url_of(name),
                    lambda: self._whole(name, lambda path: self._fs.cp_file(there, path)),
                )
            except FileNotFoundError as error:
                raise _missing(source.url_of(files[name])) from error

        if not self.shares_service_with(source):
            reason = f"{source.url} lies with another service."
            raise RemoteRefusedError("copying to", self.url, reason, "fetch and send the files")
        _in_parallel(copy, files)
        return Traffic()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is none to remove."""

        def remove(name: str) -> None:
            try:
                attempt("removing", self.url_of(name), lambda: self._fs.rm_file(self._path(name)))
            except (FileNotFoundError, KeyError):
                return

        _in_parallel(remove, list(names))

    # -- one file ----------------------------------------------------------------------------------

    def _send(self, name: str, content: Content) -> None:
        def write(path: str) -> None:
            parts = {}
            if self._protocol == "s3":
                parts["chunksize"] = checksums.part_size(checksums.size_of(content))
            if isinstance(content, bytes):
                self._fs.pipe_file(path, content, **parts)
            else:
                self._fs.put_file(str(content), path, **parts)

        def send() -> None:
            self._whole(name, write)
            self._verify(name, content)

        attempt("sending", self.url_of(name), send)

    def _whole(self, name: str, write: Callable[[str], None]) -> None:
        """Write a file so that it is not seen before it is whole, which objects never are."""
        path = self._path(name)
        if self._protocol not in _BUCKETS:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        if self._protocol != "file":
            write(path)
            return
        beside = Path(path).with_name(f".{Path(path).name}.{_unique()}.new")
        try:
            write(beside.as_posix())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _verify(self, name: str, content: Content) -> None:
        answer, size = self._ask(name), checksums.size_of(content)
        if answer["size"] != size:
            problem = f"{answer['size']} bytes arrived of {size}"
            raise DamagedTransferError(self.url_of(name), problem)
        if self._agrees(name, answer, content) is False:
            raise DamagedTransferError(self.url_of(name), "other bytes arrived than were sent")

    def _fetch(self, name: str, target: Path, entry: Entry) -> None:
        def fetch() -> None:
            self._fs.get_file(self._path(name), str(beside))
            size = beside.stat().st_size
            if size != entry["size"]:
                raise DamagedTransferError(url, f"{size} bytes, expected {entry['size']}")
            if "sha256" in entry and local_files.sha256(beside) != entry["sha256"]:
                raise DamagedTransferError(url, "its content is another (SHA-256 differs)")

        url = self.url_of(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{_unique()}.new")
        try:
            attempt("fetching", url, fetch)
            beside.replace(target)
        except FileNotFoundError as error:
            raise _missing(url) from error
        finally:
            beside.unlink(missing_ok=True)

    # -- the service -------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _ask(self, name: str) -> dict[str, Any]:
        """Return what the service says of a file: `size`, `type`, and what it says of its content."""
        if self._protocol != "s3":
            return self._fs.info(self._path(name))
        bucket, key, _ = self._fs.split_path(self._path(name))
        head = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        return {**head, "size": head["ContentLength"], "type": "file"}

    def _listed(self, prefix: str) -> dict[str, dict[str, Any]]:
        url = self.url_of(prefix) if prefix else self.url
        path = self._path(prefix).rstrip("/")

        def find() -> dict[str, dict[str, Any]]:
            self._fs.invalidate_cache()
            return self._fs.find(path, detail=True)

        try:
            found = attempt("listing", url, find)
        except FileNotFoundError:
            return {}
        start = len(self._root) + 1
        return {
            each[start:]: answer
            for each, answer in sorted(found.items())
            if not each.endswith("/")  # S3's consoles make folders
            and answer["type"] == "file"
            and each != self._root
        }

    def _agrees(self, name: str, answer: Mapping[str, Any], content: Content) -> bool | None:
        if self._protocol == "s3":
            return checksums.agrees_with_etag(answer, content)
        if self._protocol in ("file", "memory"):
            found = self._fs.cat_file(self._path(name))
            return found == (content if isinstance(content, bytes) else content.read_bytes())
        return None


_CURE = "write s3://bucket/folder, a URL of another protocol that fsspec knows, or a local path"


def _missing(url: str) -> MissingFileError:
    return MissingFileError(url, "there is no such file", "look whether the URL is the right one")


def _mark(answer: Mapping[str, Any]) -> str:
    """Return what tells one content of a file from its next, by the names that services use."""
    for name in ("ETag", "etag", "mtime", "updated", "last_modified", "LastModified", "created"):
        if answer.get(name):
            return str(answer[name])
    return ""


def _unique() -> str:
    return f"{os.getpid()}-{threading.get_ident()}"


def _in_parallel(act: Callable[[str], None], names: Iterable[str]) -> None:
    """Act on each name, some at a time; after the first failure begin no more, and raise it."""
    stop = threading.Event()

    def unless_stopped(name: str) -> None:
        if not stop.is_set():
            try:
                act(name)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="remote") as pool:
        try:
            list(pool.map(unless_stopped, names))
        finally:  # Ctrl-C comes here, while it waits
            stop.set()
