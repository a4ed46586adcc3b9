"""Read and check the manifest of a state, `state.json`. Needs no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from renate_stages.errors import DamagedStateError, MissingFileError, NewerStateError

SCHEMA = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each old schema, a function that converts its manifest to the next, so that states of older
releases stay readable."""
MANIFEST = "state.json"
# Entries of the manifest that are only written if they say anything.
OPTIONAL = ("left", "task", "labels", "fingerprint")


@dataclass(frozen=True)
class Provenance:
    """Where a state comes from.

    Args:
        kind: `init` for a first state, `update` after training, `forget` after forgetting alone.
        update: Number of the update that wrote it, 0 for a first state.
        parent: Identity of the state that the update started from; None for a first state.
        inputs: Digest of all inputs of the update; None for a first state.
        learner: Name of the learner that wrote it; None for a first state.
        classes: All labels seen so far, ascending; empty if targets are not labels.
        task_ids: Task of each update so far, by its number as text.
        left: For each of the parent's stores from which rows were removed, by its path: the number
            of `rows`, and the SHA-256 of its list of files `before` and `after`. It reveals nothing
            about the content of the rows.
        task: Name of the task, as in `params.yaml`; None if no data has shown it yet, or if the state
            is older than tasks.
        labels: Names of the labels: the name of label n is at place n. Empty if labels are numbers.
        fingerprint: SHA-256 of what inputs were encoded with, by name; see `state.fingerprint`.
    """

    kind: Literal["init", "update", "forget"]
    update: int
    parent: str | None = None
    inputs: str | None = None
    learner: str | None = None
    classes: tuple[int, ...] = ()
    task_ids: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    task: str | None = None
    labels: tuple[str, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check only `state.json`, not the files that it lists.

    Raises:
        MissingFileError: If there is no state.
        DamagedStateError: If `state.json` cannot be read.
        NewerStateError: If a newer version of this library wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        cure = "check the path; the folder of a state contains state.json"
        if not folder.exists() and folder.name == "parent-state":
            cure = "run `renate-stages init` in a new project, `dvc pull parent.dvc` in a clone"
        elif folder.with_name(f"{folder.name}.dvc").is_file():
            cure = f"run `dvc checkout {folder.name}.dvc` or, in a new clone, `dvc pull`"
        elif folder.name == "state":  # of stage `train`
            cure = "run `dvc repro` or, in a new clone, `dvc pull`"
        raise MissingFileError(path, "there is no state here", cure)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedStateError(folder, [f"{MANIFEST}: not a manifest ({error})"]) from error
    return parse_manifest(content, folder)


def parse_manifest(content: bytes, folder: Path | str) -> dict[str, Any]:
    """Parse and check the content of a `state.json`.

    Args:
        content: Content of the file.
        folder: Folder or URL of the state, for error messages.

    Raises:
        DamagedStateError: If the content is not a valid manifest.
        NewerStateError: If a newer version of this library wrote it.
    """
    try:
        manifest = json.loads(content.decode())
        schema = manifest["schema"]
    except Exception as error:
        raise DamagedStateError(folder, [f"{MANIFEST}: not a manifest ({error})"]) from error
    if not isinstance(schema, int) or schema > SCHEMA:
        raise NewerStateError(f"{folder}/{MANIFEST}", schema, SCHEMA)
    if schema < 1:
        raise DamagedStateError(
            folder, [f"{MANIFEST}: its schema is {schema}, expected at least 1"]
        )
    for older in range(schema, SCHEMA):
        manifest = MIGRATIONS[older](manifest)
    missing = {"files", *Provenance.__dataclass_fields__}.difference(OPTIONAL, manifest)
    if missing:
        raise DamagedStateError(folder, [f"{MANIFEST}: lacks {', '.join(sorted(missing))}"])
    if not _lists_files(manifest["files"]):
        raise DamagedStateError(folder, [f"{MANIFEST}: its list of files is not valid"])
    if outside := [name for name in manifest["files"] if not is_inside(name)]:
        problems = [
            f"{MANIFEST}: it lists {name!r:.80}, which is not a file of the state"
            for name in outside
        ]
        raise DamagedStateError(folder, problems)
    if wrong := [name for name, entry in manifest["files"].items() if not _is_entry(entry)]:
        problems = [f"{MANIFEST}: its entry for {name!r:.80} is not valid" for name in wrong]
        raise DamagedStateError(folder, problems)
    if wrong := [name for name, fits in _KINDS.items() if not fits(manifest.get(name))]:
        problems = [f"{MANIFEST}: {name} is {manifest.get(name)!r:.80}" for name in wrong]
        raise DamagedStateError(folder, problems)
    return manifest


def _lists_files(listed: Any) -> bool:
    return isinstance(listed, dict) and all(
        isinstance(entry, dict) and {"sha256", "size"} <= entry.keys() for entry in listed.values()
    )


def _is_entry(entry: dict[str, Any]) -> bool:
    size, digest = entry["size"], entry["sha256"]
    fits = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)
    return type(size) is int and size >= 0 and bool(fits)


def is_inside(name: str) -> bool:
    """Return whether a POSIX path is relative and stays inside its folder."""
    path = PurePosixPath(name)
    return path.as_posix() == name != "." and not path.is_absolute() and ".." not in path.parts


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_names(value: Any) -> bool:
    is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return is_list and all(map(str.isprintable, value)) and len(set(value)) == len(value)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "kind": lambda value: value in ("init", "update", "forget"),
    "update": lambda value: type(value) is int and value >= 0,
    "parent": _is_text_or_none,
    "inputs": _is_text_or_none,
    "learner": _is_text_or_none,
    "task": _is_text_or_none,
    "classes": lambda value: isinstance(value, list) and all(type(each) is int for each in value),
    "task_ids": lambda value: (
        isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    ),
    "labels": lambda value: value is None or _are_names(value),
    "fingerprint": lambda value: (
        value is None
        or (isinstance(value, dict) and all(isinstance(each, str) for each in value.values()))
    ),
    "left": lambda value: value is None or isinstance(value, dict),
}
"""For each key of a manifest, a function that checks the type of its value."""
