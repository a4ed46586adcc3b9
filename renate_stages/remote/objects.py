"""Files by their content, at a URL: one that is there is never sent again, whoever sent it.

    objects/3f/9a0c...    named by the SHA-256 of the bytes

A memory shard that ten updates keep is there once. What a job makes of its inputs is named likewise,
so that shards of the parent's memory, which the new state has too, travel neither there nor back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from renate_stages import files
from renate_stages.errors import DamagedOutputError

if TYPE_CHECKING:
    from renate_stages.files import Entry
    from renate_stages.remote.storage import Storage, Traffic

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

    def upload(self, wanted: Mapping[Path, Entry], what: str) -> Traffic:
        """Send those files that are not there.

        Args:
            wanted: Size and SHA-256 of each file here.
            what: They are, for the progress that a user sees.

        Returns:
            What travelled.

        Raises:
            RenateStagesError: If it cannot be sent, and arrive whole.
        """
        names = {name_of(entry): (path, entry["size"]) for path, entry in wanted.items()}
        there = self._sizes(names)
        lacking = {n: path for n, (path, size) in names.items() if there.get(n) != size}
        return self.storage.put(lacking, what)

    def download(
        self, wanted: Mapping[Path, Entry], here: Mapping[str, Path], what: str
    ) -> Traffic:
        """Bring files, each checked, into places where nothing is.

        Args:
            wanted: Size and SHA-256 for each new file.
            here: Files of this machine by their SHA-256, which are linked or copied instead.
            what: They are, for the progress that a user sees.

        Returns:
            What travelled.

        Raises:
            DamagedOutputError: If one of them is not there.
            RenateStagesError: If it cannot be had, or arrives otherwise than it was sent.
        """
        sources: dict[str, Path] = {}  # one place for each object, of those that travel
        copies: list[tuple[Path, str]] = []
        for target, entry in wanted.items():
            known = here.get(entry["sha256"])
            if known is not None:
                files.link_or_copy(known, target)
            elif name_of(entry) in sources:
                copies.append((target, name_of(entry)))
            else:
                sources[name_of(entry)] = target
        entries = {name_of(entry): entry for entry in wanted.values()}
        there = self._sizes(sources)
        for name in sources:
            if name not in there:
                raise DamagedOutputError(self.storage.url_of(name), "it is not there any more")
        travelled = self.storage.get(sources, {name: entries[name] for name in sources}, what)
        for target, name in copies:
            files.link_or_copy(sources[name], target)
        return travelled

    def _sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those objects that are there, and of their neighbours."""
        folders = sorted({f"{name.split('/')[0]}/" for name in names})
        return self.storage.sizes_in(folders)


def name_of(entry: Entry) -> str:
    """Return what an object is called."""
    digest = entry["sha256"]
    return f"{digest[:PREFIX_LENGTH]}/{digest[PREFIX_LENGTH:]}"
