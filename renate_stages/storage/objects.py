"""Content-addressed files at a URL: files with the same content are stored and uploaded once.

    objects/3f/9a0c...    named by the SHA-256 of the bytes

A memory shard that ten updates keep is stored once. A job's outputs are stored in the same way, so
shards of the parent's memory that are also in the new state are transferred in neither direction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from renate_stages import files
from renate_stages.errors import DamagedOutputError
from renate_stages.storage.parallel import in_parallel

if TYPE_CHECKING:
    from renate_stages.files import Entry
    from renate_stages.storage.storage import Storage, Traffic

PREFIX_LENGTH = 2  # hexadecimal digits: 256 folders


class ObjectStore:
    """Objects under a URL.

    Args:
        storage: The storage at that URL.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @property
    def url(self) -> str:
        """The URL, without a final slash."""
        return self.storage.url

    def upload(
        self, wanted: Mapping[Path, Entry], what: str, doubted: Collection[str] | None = ()
    ) -> Traffic:
        """Upload the files that the storage does not have, or has with other content.

        If the service gives no checksum, for example for objects encrypted with KMS, an object of
        the right size counts as present; whoever reads it verifies it.

        Args:
            wanted: Size and SHA-256 of each local file.
            what: Name of the files in the progress messages.
            doubted: Names of objects to upload even if only their size is known to be right; None:
                all.

        Returns:
            The uploaded files and bytes.

        Raises:
            RenateStagesError: If the upload fails.
        """
        paths = {name_of(entry): path for path, entry in wanted.items()}
        present = self.storage.same(paths, _folders(paths), doubted)
        return self.storage.put({n: path for n, path in paths.items() if n not in present}, what)

    def download(
        self, wanted: Mapping[Path, Entry], here: Mapping[str, Path], what: str
    ) -> Traffic:
        """Download and verify files to paths that do not exist yet.

        Args:
            wanted: Size and SHA-256 of each new file.
            here: Local files by the SHA-256 that they had. A file that still has it is linked or
                copied instead of downloaded.
            what: Name of the files in the progress messages.

        Returns:
            The downloaded files and bytes.

        Raises:
            DamagedOutputError: If an object is missing or has another size.
            DamagedTransferError: If the content of an object does not match its name.
            RenateStagesError: If the download fails.
        """
        local_digests = {e["sha256"] for e in wanted.values() if e["sha256"] in here}
        local = {digest: here[digest] for digest in local_digests if here[digest].is_file()}
        changed = _unequal({digest: (path, digest) for digest, path in local.items()})
        sources: dict[str, Path] = {}  # one target path for each object to download
        copies: list[tuple[Path, str]] = []
        for target, entry in wanted.items():
            digest = entry["sha256"]
            if digest in local and digest not in changed:
                files.link_or_copy(local[digest], target)
            elif name_of(entry) in sources:
                copies.append((target, name_of(entry)))
            else:
                sources[name_of(entry)] = target
        entries = {name_of(entry): entry for entry in wanted.values()}
        sizes = self.storage.sizes_in(_folders(sources))
        for name in sources:
            if sizes.get(name) != entries[name]["size"]:
                found = f"it has {sizes[name]} bytes" if name in sizes else "it is missing"
                problem = f"{found}; expected {entries[name]['size']} bytes"
                raise DamagedOutputError(self.storage.url_of(name), problem)
        traffic = self.storage.get(sources, {name: entries[name] for name in sources}, what)
        for target, name in copies:
            files.link_or_copy(sources[name], target)
        return traffic


def name_of(entry: Entry) -> str:
    """Return the name of an object."""
    digest = entry["sha256"]
    return f"{digest[:PREFIX_LENGTH]}/{digest[PREFIX_LENGTH:]}"


def damaged(folder: Path, entries: Iterable[Entry]) -> list[str]:
    """Return the names of the objects in a folder that are missing or do not match their name.

    Args:
        folder: Folder with the objects.
        entries: Entries of the objects that the folder must have.
    """
    names = {name_of(entry): (folder / name_of(entry), entry["sha256"]) for entry in entries}
    return sorted(_unequal(names))


def _unequal(files_by_name: Mapping[str, tuple[Path, str]]) -> set[str]:
    """Return the names of the files that are missing or do not have the given SHA-256."""
    unequal: set[str] = set()

    def compare(name: str) -> None:
        path, digest = files_by_name[name]
        if not path.is_file() or files.sha256(path) != digest:
            unequal.add(name)

    in_parallel(compare, files_by_name)
    return unequal


def _folders(names: Iterable[str]) -> list[str]:
    return sorted({f"{name.split('/')[0]}/" for name in names})
