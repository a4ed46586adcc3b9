"""`PreparedData`: the new examples of an update, from `prepare` for `tune` and `train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from renate_stages import files
from renate_stages.errors import MalformedFileError, MissingFileError
from renate_stages.memory import ExampleStore

MANIFEST = "prepared.json"
LABELS = "labels.json"  # names of the labels; missing if labels are numbers
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class PreparedData:
    """Stores of the new examples, before any transform.

    Args:
        train: Training examples.
        val: Validation examples; may be empty.
        test: The holdout of this update.
        digest: SHA-256 of the contents of all stores.
        labels: Names of the labels of this update and earlier ones: the name of label n is at place
            n. Empty if labels are numbers.
        fingerprint: SHA-256 of what inputs were encoded with, by name; see `state.fingerprint`.
        folder: The folder, which may have a preprocessing; None: data in memory, without one.
    """

    train: ExampleStore
    val: ExampleStore
    test: ExampleStore
    digest: str
    labels: tuple[str, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        """Open the folder that `prepare` wrote.

        Raises:
            MissingFileError: If the folder has no prepared data.
            DamagedStoreError: If a store in it is damaged.
            MalformedFileError: If its list of labels is damaged.
        """
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise MissingFileError(manifest, "there is no prepared data", "run `dvc repro`")
        train, val, test = (ExampleStore.open(folder / split) for split in SPLITS)
        content = files.read_json(manifest)
        fingerprint = content.get("fingerprint") if isinstance(content, dict) else None
        labels = _labels(folder / LABELS)
        return cls(train, val, test, files.sha256(manifest), labels, fingerprint or {}, folder)


def _labels(path: Path) -> tuple[str, ...]:
    names = files.read_json(path) if path.is_file() else []
    if not (isinstance(names, list) and all(isinstance(each, str) for each in names)):
        raise MalformedFileError(path, "names of labels", "expected a list of texts")
    return tuple(names)


def write_manifest(
    folder: Path,
    update: int,
    labels: Sequence[str] = (),
    fingerprint: Mapping[str, str] | None = None,
) -> None:
    """Write the names of the labels, and list every file with its size and SHA-256.

    Args:
        folder: The folder of the prepared data.
        update: Number of the update.
        labels: Names of the labels; empty if labels are numbers.
        fingerprint: As in `PreparedData`.
    """
    if labels:
        files.write_json(folder / LABELS, list(labels))
    listed = files.inventory(folder, without=(MANIFEST,))
    own = {"fingerprint": dict(fingerprint)} if fingerprint else {}
    files.write_json(folder / MANIFEST, {"files": listed, "update": update, **own})
