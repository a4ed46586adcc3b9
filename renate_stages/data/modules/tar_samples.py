"""Index tar files of samples in WebDataset's format, and read their members in any order."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from renate_stages.errors import MissingDataFileError


@dataclass
class Sample:
    """The members of a tar file with one key.

    Args:
        shard: Place of the tar file in the list of all.
        key: The path of the members up to the first dot of the name.
        members: Offset and size in bytes by what follows the dot, in lower case.
    """

    shard: int
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


def indexed(module: str, shards: Sequence[Path], folder: Path) -> list[Sample]:
    """Return the samples of tar files in order; only headers are read.

    Members belong to one sample if they follow each other and have the same key.

    Args:
        module: Name of the data module, for messages.
        shards: The tar files, not compressed.
        folder: Folder that paths in messages are relative to.

    Raises:
        MissingDataFileError: If a file is no complete tar file, or a sample has a member twice.
    """
    samples: list[Sample] = []
    for number, shard in enumerate(shards):
        name = shard.relative_to(folder).as_posix()
        try:
            with tarfile.open(shard, "r:") as archive:
                size = shard.stat().st_size
                for member in archive:
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError("unexpected end of data")
                    if member.isfile():
                        _add(samples, number, member, module, name)
        except tarfile.TarError as error:
            cure = "copy it again; compressed files must be decompressed"
            problem = f"it is not a complete tar file: {error}"
            raise MissingDataFileError(module, name, problem, cure) from error
    return samples


def _add(
    samples: list[Sample], shard: int, member: tarfile.TarInfo, module: str, name: str
) -> None:
    path = PurePosixPath(member.name)
    stem, _, extension = path.name.partition(".")
    if not stem or not extension:
        return  # as WebDataset does
    key, extension = str(path.parent / stem), extension.lower()
    if not samples or (samples[-1].shard, samples[-1].key) != (shard, key):
        samples.append(Sample(shard, key))
    if extension in samples[-1].members:
        problem = f"the sample {key} has {extension} twice"
        raise MissingDataFileError(module, name, problem, "write keys that differ")
    samples[-1].members[extension] = (member.offset_data, member.size)


class Members:
    """The bytes of one member of each sample, by row.

    Args:
        shards: The tar files.
        places: Shard, offset and size of each row.
    """

    def __init__(self, shards: Sequence[Path], places: Sequence[tuple[int, int, int]]) -> None:
        self._shards, self._places = shards, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> bytes:
        shard, offset, size = self._places[row]
        descriptor = os.open(self._shards[shard], os.O_RDONLY)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def of_rows(self, rows: Sequence[int]) -> Members:
        """Return some rows, in the given order."""
        return Members(self._shards, [self._places[row] for row in rows])

    @property
    def sizes(self) -> list[int]:
        """Size of each row in bytes."""
        return [size for _, _, size in self._places]
