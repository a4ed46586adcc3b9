"""Store files by content at a URL: a file that is there is never sent again.

    objects/3f/9a0c...    named by the SHA-256 of the bytes

A memory shard that ten updates keep is there once. What a job makes of its inputs is named likewise,
so that shards of the parent's memory, which the new state has too, travel neither there nor back.
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
        storage: What they lie under.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @property
    def url(self) -> str:
        """Address that all names of objects begin with, without a slash at its end."""
        return self.storage.url

    def upload(
        self, wanted: Mapping[Path, Entry], what: str, doubted: Collection[str] | None = ()
    ) -> Traffic:
        """Send those files that are not there, or are there with other bytes.

        Where the service tells nothing of the content, as of objects that KMS encrypts, an object of
        the right size counts as there: who reads it verifies it.

        Args:
            wanted: Size and SHA-256 of each file here.
            what: They are, for the progress that a user sees.
            doubted: Names of objects that are sent again even then. None: all.

        Returns:
            What travelled.

        Raises:
            RenateStagesError: If it cannot be sent, and arrive whole.
        """
        paths = {name_of(entry): path for path, entry in wanted.items()}
        there = self.storage.same(paths, _folders(paths), doubted)
        return self.storage.put({n: path for n, path in paths.items() if n not in there}, what)

    def download(
        self, wanted: Mapping[Path, Entry], here: Mapping[str, Path], what: str
    ) -> Traffic:
        """Bring files, each checked, into places where nothing is.

        Args:
            wanted: Size and SHA-256 for each new file.
            here: Files of this machine by the SHA-256 that they had: one that still has it is linked
                or copied instead.
            what: They are, for the progress that a user sees.

        Returns:
            What travelled.

        Raises:
            DamagedOutputError: If one of them is not there, or has another size.
            DamagedTransferError: If the content of one is not what its name says.
            RenateStagesError: If it cannot be had.
        """
        wanted_here = {e["sha256"] for e in wanted.values() if e["sha256"] in here}
        held = {digest: here[digest] for digest in wanted_here if here[digest].is_file()}
        changed = _unequal({digest: (path, digest) for digest, path in held.items()})
        sources: dict[str, Path] = {}  # one place for each object, of those that travel
        copies: list[tuple[Path, str]] = []
        for target, entry in wanted.items():
            digest = entry["sha256"]
            if digest in held and digest not in changed:
                files.link_or_copy(held[digest], target)
            elif name_of(entry) in sources:
                copies.append((target, name_of(entry)))
            else:
                sources[name_of(entry)] = target
        entries = {name_of(entry): entry for entry in wanted.values()}
        there = self.storage.sizes_in(_folders(sources))
        for name in sources:
            if there.get(name) != entries[name]["size"]:
                found = f"it has {there[name]} bytes" if name in there else "it is not there"
                problem = f"{found}; expected {entries[name]['size']} bytes"
                raise DamagedOutputError(self.storage.url_of(name), problem)
        travelled = self.storage.get(sources, {name: entries[name] for name in sources}, what)
        for target, name in copies:
            files.link_or_copy(sources[name], target)
        return travelled


def name_of(entry: Entry) -> str:
    """Return what an object is called."""
    digest = entry["sha256"]
    return f"{digest[:PREFIX_LENGTH]}/{digest[PREFIX_LENGTH:]}"


def damaged(folder: Path, entries: Iterable[Entry]) -> list[str]:
    """Return the names of objects in a folder whose content is not what their name says.

    Args:
        folder: Where the objects are.
        entries: Of those that must be there; one that is not there counts as damaged.
    """
    names = {name_of(entry): (folder / name_of(entry), entry["sha256"]) for entry in entries}
    return sorted(_unequal(names))


def _unequal(files_by_name: Mapping[str, tuple[Path, str]]) -> set[str]:
    """Return the names of files, each given with the SHA-256 that it should have, that have another."""
    found: set[str] = set()

    def compare(name: str) -> None:
        path, digest = files_by_name[name]
        if not path.is_file() or files.sha256(path) != digest:
            found.add(name)

    in_parallel(compare, files_by_name)
    return found


def _folders(names: Iterable[str]) -> list[str]:
    return sorted({f"{name.split('/')[0]}/" for name in names})
