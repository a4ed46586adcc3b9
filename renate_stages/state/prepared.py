"""`PreparedData`: the new examples of an update, from `prepare` for `tune` and `train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renate_stages import files
from renate_stages.errors import MissingFileError
from renate_stages.memory import ExampleStore

MANIFEST = "prepared.json"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class PreparedData:
    """Stores of the new examples, before any transform.

    Args:
        train: Training examples.
        val: Validation examples; may be empty.
        test: The holdout of this update.
        digest: SHA-256 of the contents of all stores.
    """

    train: ExampleStore
    val: ExampleStore
    test: ExampleStore
    digest: str

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        """Open the folder that `prepare` wrote.

        Raises:
            MissingFileError: If the folder has no prepared data.
            DamagedStoreError: If a store in it is damaged.
        """
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise MissingFileError(manifest, "there is no prepared data", "run `dvc repro`")
        train, val, test = (ExampleStore.open(folder / split) for split in SPLITS)
        return cls(train, val, test, files.sha256(manifest))


def write_manifest(folder: Path, update: int) -> None:
    """List every file of the prepared data with its size and SHA-256."""
    listed = files.inventory(folder, without=(MANIFEST,))
    files.write_json(folder / MANIFEST, {"files": listed, "update": update})
