"""List, read and delete objects in DVC's cache and remotes.

<cache or remote>/files/md5/ab/cdef...        a file, or the list of a folder's files (.dir)
<cache>/runs/ab/<key>/<value>                 the run cache: a stage's outputs for given inputs
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from renate_stages.errors import (
    BusyError,
    CommandError,
    DamagedObjectError,
    StorageUnreadableError,
)
from renate_stages.lineage.history import hashes_in
from renate_stages.project import Project

_HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")
_AT_ONCE = 1000  # objects in one delete request, the limit of S3


@dataclass(frozen=True)
class ObjectStorage:
    """A cache or a remote, with the objects it had when it was listed.

    Args:
        name: `cache`, or the remote's name.
        location: Its folder or URL.
        sizes: Size of each object in bytes, by hash.
        others: Files whose names are not hashes; killed commands leave such files.
        closed: Why it cannot be listed; None if it was listed.
        odb: DVC's object database.
    """

    name: str
    location: str
    sizes: Mapping[str, int]
    others: tuple[str, ...] = ()
    closed: str | None = None
    odb: Any = field(default=None, repr=False)

    def path(self, md5: str) -> str:
        """Return the path of an object, whether it exists or not."""
        return self.odb.oid_to_path(md5)

    def shown(self, md5: str) -> str:
        """Return the path or URL of an object for messages."""
        path = self.path(md5)
        return path if _is_local(self.odb) else self.odb.fs.unstrip_protocol(path)

    def remove(self, hashes: Collection[str], others: Collection[str] = ()) -> None:
        """Delete objects; missing objects are ignored.

        The file lists of folders are deleted last, so that a run after an interruption can still find
        the remaining files.

        Args:
            hashes: Hashes of the objects.
            others: Paths of other files to delete.

        Raises:
            StorageUnreadableError: If the storage refuses the request.
        """
        from dvc_data.hashfile.db import get_index

        present = sorted(hashes & self.sizes.keys(), key=lambda md5: (md5.endswith(".dir"), md5))
        paths = [*others, *map(self.path, present)]
        with closing(get_index(self.odb)) as index:
            index.clear()  # otherwise `dvc push` believes that the deleted objects still exist
        with _errors_of(self.name, self.location):
            for start in range(0, len(paths), _AT_ONCE):
                self.odb.fs.remove(paths[start : start + _AT_ONCE])


@dataclass(frozen=True)
class Objects:
    """The objects of a project in the cache and in all remotes.

    Args:
        cache: DVC's cache.
        is_own: Whether the cache is inside the project's folder, which is DVC's default.
        remotes: Every remote in the project's settings.
        runs: Folder of the run cache.
        scratch: An empty folder for fetched objects.
    """

    cache: ObjectStorage
    is_own: bool
    remotes: tuple[ObjectStorage, ...]
    runs: Path
    scratch: Path
    _located: dict[str, Path] = field(default_factory=dict, repr=False)
    _trees: dict[str, dict[str, str] | None] = field(default_factory=dict, repr=False)

    @classmethod
    @contextmanager
    def open(cls, project: Project) -> Iterator[Objects]:
        """List the cache and the remotes; other DVC commands are locked out until the block ends.

        Raises:
            BusyError: If another DVC command is running in the project.
            CommandError: If DVC cannot open the project.
            StorageUnreadableError: If the cache or a remote cannot be reached.
        """
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo

        with ExitStack() as stack:
            scratch = stack.enter_context(project.empty_scratch("objects"))
            try:
                repo = stack.enter_context(Repo(str(project.root)))
                repo.lock.lock()
            except LockError as error:
                raise BusyError(project.root, "a DVC command") from error
            except DvcException as error:
                raise CommandError(["dvc", "status"], str(error)) from error
            try:
                folder = Path(repo.cache.local_cache_dir)
                cache = _listed("cache", repo.cache.local)
                is_own = folder.resolve().is_relative_to(project.root.resolve())
                remotes = tuple(_remote(repo, name) for name in sorted(repo.config["remote"]))
                yield cls(cache, is_own, remotes, folder / "runs", scratch)
            finally:
                repo.lock.unlock()

    def locate(self, md5: str) -> Path | None:
        """Return a local file with an object's content; fetch it if only a remote has it.

        Returns:
            None if neither the cache nor a remote has the object.

        Raises:
            DamagedObjectError: If the content does not match the hash; wrong rows or files would be
                read from it.
            StorageUnreadableError: If the remote cannot be read.
        """
        if md5 in self._located:
            return self._located[md5]
        for storage in (self.cache, *self.remotes):
            if md5 in storage.sizes:
                path = Path(self.cache.path(md5))
                if storage is not self.cache:
                    path = self.scratch / md5
                    with _errors_of(storage.name, storage.location):
                        storage.odb.fs.get_file(storage.path(md5), str(path))
                _require_hash(path, md5, storage.shown(md5))
                self._located[md5] = path
                return path
        return None

    def tree(self, md5: str) -> dict[str, str] | None:
        """Return the hash of each file of a folder by relative path, or None if no storage has it.

        Raises:
            DamagedObjectError, StorageUnreadableError: As in `locate`.
        """
        if md5 not in self._trees:
            path = self.locate(md5)
            listed = json.loads(path.read_bytes()) if path else ()
            tree = {each["relpath"]: each["md5"] for each in listed}
            self._trees[md5] = None if path is None else tree
        return self._trees[md5]

    def closure(self, md5: str) -> set[str]:
        """Return the hash and, if it is a folder's, the hashes of its files if they are known."""
        tree = self.tree(md5) if md5.endswith(".dir") else None
        return {md5, *(tree or {}).values()}

    def remove_runs(self, folders: frozenset[str]) -> None:
        """Delete the entries of the run cache that refer to any of the given folder hashes."""
        for path in sorted(self.runs.rglob("*")):
            if path.is_file() and not folders.isdisjoint(hashes_in(path.read_text("utf-8"))):
                path.unlink()


def _remote(repo: Any, name: str) -> ObjectStorage:
    url = urlsplit(str(repo.config["remote"][name]["url"]))
    location = f"{url.scheme or 'file'}://{url.hostname or ''}{url.path}"  # without a password
    with _errors_of(name, location):
        remote = repo.cloud.get_remote(name)  # fails if the package for its protocol is missing
    if remote.worktree or remote.fs.version_aware:
        return ObjectStorage(
            name, remote.path, {}, closed="it stores files by name and version, not by hash"
        )
    if not remote.fs.CAN_TRAVERSE:
        return ObjectStorage(name, remote.path, {}, closed="it cannot be listed", odb=remote.odb)
    return _listed(name, remote.odb)


def _listed(name: str, odb: Any) -> ObjectStorage:
    location = odb.path if _is_local(odb) else odb.fs.unstrip_protocol(odb.path)
    sizes, others = {}, []
    with _errors_of(name, location):
        for path, size in _files(odb):
            parts: Sequence[str] = odb.fs.parts(path)[-2:]
            md5 = "".join(parts)
            if len(parts[0]) == 2 and _HASH.fullmatch(md5):
                sizes[md5] = size
            else:
                others.append(path)
    return ObjectStorage(name, location, sizes, tuple(sorted(others)), odb=odb)


def _files(odb: Any) -> Iterator[tuple[str, int]]:
    """Yield path and size in bytes of every file of a storage."""
    if _is_local(odb):
        for path in Path(odb.path).rglob("*"):
            if not path.is_dir():
                yield str(path), path.lstat().st_size
        return
    odb.fs.fs.invalidate_cache()
    try:
        found = odb.fs.fs.find(odb.path, detail=True)
    except FileNotFoundError:  # nothing has been pushed yet
        return
    yield from ((path, each["size"] or 0) for path, each in found.items())


def _is_local(odb: Any) -> bool:
    return odb.fs.protocol == "local"


@contextmanager
def _errors_of(name: str, location: str) -> Iterator[None]:
    """Turn any error of a block into one that names the storage; each protocol has its own errors."""
    try:
        yield
    except Exception as error:
        raise StorageUnreadableError(name, location, error) from error


def _require_hash(path: Path, md5: str, place: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.removesuffix(".dir"):
        raise DamagedObjectError(place, md5)
