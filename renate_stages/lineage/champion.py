"""Read and write `champion.dvc`, the pointer to the update whose `export/` serves.

Its `meta`, which DVC does not interpret, lists the earlier champions. So `demote` does not need Git's
history: it also works in a shallow clone and after a squash merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from renate_stages.errors import (
    ChangedPointerError,
    MalformedFileError,
    NoChampionPointerError,
)
from renate_stages.files import yaml_file
from renate_stages.lineage.commands import git
from renate_stages.lineage.content import cached, listing
from renate_stages.lineage.records import HASH, folder_entry, read_pointer, stage_entry
from renate_stages.lineage.transaction import changing
from renate_stages.project import Project

POINTER: Final = "champion.dvc"
HASH_KEYS = ("md5", "size", "nfiles")
KINDS = {"md5": str, "size": int, "nfiles": int, "update": int, "state": str}
DESCRIPTION = "export.json"  # the description of an exported model


@dataclass(frozen=True)
class ChampionPointer:
    """The content of `champion.dvc`.

    Args:
        out: Hash, size in bytes and number of files of the champion's `export/`.
        update: Number of the update that made the export; 0 if there is no champion.
        state: Identity of that update's state.
        replaced: The earlier champions, oldest first; each has the keys of `KINDS`.
    """

    out: dict[str, Any]
    update: int = 0
    state: str = ""
    replaced: tuple[dict[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Return the champion's name in messages."""
        return f"update {self.update}" if self.update else "none"

    @classmethod
    def read(cls, project: Project) -> ChampionPointer:
        """Read the pointer.

        Raises:
            NoChampionPointerError: If the project has no `champion.dvc`.
            MalformedFileError: If the file does not have the format that `text` writes.
        """
        path = project.champion_pointer
        if not path.is_file():
            raise NoChampionPointerError
        return cls.parse(yaml_file.text(path))

    @classmethod
    def parse(cls, text: str) -> ChampionPointer:
        """Parse the text of a `champion.dvc`.

        Raises:
            MalformedFileError: If it does not have the format that `text` writes.
        """
        out = read_pointer(text, POINTER)
        meta = yaml_file.parse(text, POINTER).get("meta") or {}
        try:
            now = _checked({**out, "update": meta.get("update", 0), "state": meta.get("state", "")})
            replaced = tuple(_checked(record) for record in meta.get("replaced", ()))
        except (AttributeError, KeyError, TypeError) as error:
            reason = f"the champion and each entry of `meta.replaced` need {', '.join(KINDS)}"
            cure = f"run `git checkout HEAD -- {POINTER}`"
            raise MalformedFileError(
                POINTER, "the pointer to the champion", reason, cure
            ) from error
        update, state = now.pop("update"), now.pop("state")
        return cls(now, update, state, replaced)

    def text(self) -> str:
        """Return the file's text; `meta` is left out if there never was a champion."""
        out = {**self.out, "hash": "md5", "path": "champion"}
        meta = {"update": self.update, "state": self.state, "replaced": list(self.replaced)}
        has_meta = self.update or self.replaced
        return yaml_file.dump({"outs": [out], **({"meta": meta} if has_meta else {})})

    def succeeded_by(self, out: dict[str, Any], update: int, state: str) -> ChampionPointer:
        """Return the pointer to a new champion; its `replaced` ends with this one."""
        own = {**self.out, "update": self.update, "state": self.state}
        return ChampionPointer(out, update, state, (*self.replaced, own))

    def predecessor(self) -> ChampionPointer:
        """Return the pointer to the champion that this one replaced."""
        *older, last = self.replaced
        out = {key: last[key] for key in HASH_KEYS}
        return ChampionPointer(out, last["update"], last["state"], tuple(older))


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a champion, or raise `KeyError` or `TypeError` if one is invalid."""
    fields = {name: record[name] for name in KINDS}
    if not all(type(fields[name]) is kind for name, kind in KINDS.items()):
        raise TypeError(record)
    if not HASH.fullmatch(fields["md5"]):
        raise TypeError(record)
    if min(fields["size"], fields["nfiles"], fields["update"]) < 0:
        raise TypeError(record)
    return fields


def export_entry(lock: str) -> dict[str, Any] | None:
    """Return the entry of `export/` in a `dvc.lock`, or None if stage `export` has not finished."""
    entry = folder_entry(lock, "export", "export")
    return {key: entry[key] for key in HASH_KEYS} if entry else None


def judged_champion(lock: str) -> str | None:
    """Return the hash of the champion that `export` compared with, or None if it did not compare."""
    entry = stage_entry(lock, "export", "deps", "champion")
    return entry["md5"] if entry else None


def verdict_hash(lock: str) -> str | None:
    """Return the hash of the verdict that `export` wrote."""
    entry = stage_entry(lock, "export", "outs", "reports/verdict.json")
    return entry["md5"] if entry else None


def crown(
    project: Project,
    command: str,
    pointer: ChampionPointer,
    message: Callable[[ChampionPointer], str],
    described: Callable[[bytes], ChampionPointer] | None = None,
) -> ChampionPointer:
    """Commit the pointer to a new champion and check out its folder; if a step fails, undo all.

    Other changed or staged files are left alone and are not part of the commit.

    Args:
        project: Its `champion.dvc` must have no uncommitted changes.
        command: The command as the user typed it, such as `renate-stages promote update-2`.
        pointer: The pointer to write.
        message: Makes the commit's message from the written pointer.
        described: Completes the pointer from the content of the champion's `export.json`.

    Raises:
        ChangedPointerError: If `champion.dvc` has uncommitted changes.
        RenateStagesError: If a step fails, for example because the model is neither in the cache
            nor in the remote.
    """
    if git(project, "status", "--porcelain", "--", POINTER):
        raise ChangedPointerError
    with changing(project, command, changes=[POINTER], pointers=[POINTER]) as change:
        change.write(POINTER, pointer.text())
        change.secure(POINTER)
        if described is not None:
            hashes = listing(project, pointer.out["md5"]) or {}
            md5 = hashes.get(DESCRIPTION)
            pointer = described(cached(project, md5).read_bytes() if md5 else b"")
            change.write(POINTER, pointer.text())
        change.commit(message(pointer))
    return pointer


def since(project: Project) -> str | None:
    """Return commit and date of the champion's promotion, or None if it is not committed."""
    return git(project, "log", "-1", "--format=%h, %cs", "--", POINTER, check=False) or None
