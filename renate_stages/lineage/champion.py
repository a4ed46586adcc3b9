"""`champion.dvc`: which update's `export/` serves, and which served before.

Its `meta`, which DVC leaves alone, lists the champions that were replaced, so that going back needs
no history: it works in a shallow clone and after a squash.
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
DESCRIPTION = "export.json"  # what an exported model says of itself


@dataclass(frozen=True)
class ChampionPointer:
    """The content of `champion.dvc`.

    Args:
        out: Hash, size and number of files of the champion's `export/`.
        update: Number of the update that made it; 0: there is no champion.
        state: Identity of that update's state.
        replaced: What was champion before, as the same in small, the latest last.
    """

    out: dict[str, Any]
    update: int = 0
    state: str = ""
    replaced: tuple[dict[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Return how a user speaks of it."""
        return f"update {self.update}" if self.update else "none"

    @classmethod
    def read(cls, project: Project) -> ChampionPointer:
        """Read the pointer.

        Raises:
            NoChampionPointerError: If there is none.
            MalformedFileError: If it is not what `text` gives.
        """
        path = project.champion_pointer
        if not path.is_file():
            raise NoChampionPointerError
        return cls.parse(yaml_file.text(path))

    @classmethod
    def parse(cls, text: str) -> ChampionPointer:
        """Read what `text` gives.

        Raises:
            MalformedFileError: If it is something else.
        """
        out = read_pointer(text, POINTER)
        meta = yaml_file.parse(text, POINTER).get("meta") or {}
        try:
            now = _checked({**out, "update": meta.get("update", 0), "state": meta.get("state", "")})
            replaced = tuple(_checked(each) for each in meta.get("replaced", ()))
        except (AttributeError, KeyError, TypeError) as error:
            reason = f"expected {', '.join(KINDS)} of the champion and of each in `meta.replaced`"
            cure = f"run `git checkout HEAD -- {POINTER}`"
            raise MalformedFileError(
                POINTER, "the pointer to the champion", reason, cure
            ) from error
        update, state = now.pop("update"), now.pop("state")
        return cls(now, update, state, replaced)

    def text(self) -> str:
        """Return the file's text; one that names no champion and replaced none has no `meta`."""
        out = {**self.out, "hash": "md5", "path": "champion"}
        meta = {"update": self.update, "state": self.state, "replaced": list(self.replaced)}
        named = self.update or self.replaced
        return yaml_file.dump({"outs": [out], **({"meta": meta} if named else {})})

    def succeeded_by(self, out: dict[str, Any], update: int, state: str) -> ChampionPointer:
        """Return the pointer to a new champion, which remembers this one."""
        own = {**self.out, "update": self.update, "state": self.state}
        return ChampionPointer(out, update, state, (*self.replaced, own))

    def predecessor(self) -> ChampionPointer:
        """Return the pointer to the champion that this one replaced."""
        *older, last = self.replaced
        out = {key: last[key] for key in HASH_KEYS}
        return ChampionPointer(out, last["update"], last["state"], tuple(older))


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a champion is described by, or raise `KeyError` or `TypeError`."""
    found = {name: record[name] for name in KINDS}
    if not all(type(found[name]) is kind for name, kind in KINDS.items()):
        raise TypeError(record)
    if not HASH.fullmatch(found["md5"]) or min(found["size"], found["nfiles"], found["update"]) < 0:
        raise TypeError(record)
    return found


def export_entry(lock: str) -> dict[str, Any] | None:
    """Return what a `dvc.lock` says of `export/`, or None where `export` has not finished."""
    entry = folder_entry(lock, "export", "export")
    return {key: entry[key] for key in HASH_KEYS} if entry else None


def judged_champion(lock: str) -> str | None:
    """Return the hash of the champion that `export` measured against; None: it measured none."""
    entry = stage_entry(lock, "export", "deps", "champion")
    return entry["md5"] if entry else None


def verdict_hash(lock: str) -> str | None:
    """Return the hash of the verdict that `export` wrote."""
    entry = stage_entry(lock, "export", "outs", "metrics/verdict.json")
    return entry["md5"] if entry else None


def crown(
    project: Project,
    command: str,
    pointer: ChampionPointer,
    message: Callable[[ChampionPointer], str],
    described: Callable[[bytes], ChampionPointer] | None = None,
) -> ChampionPointer:
    """Commit the pointer to a champion and put its folder in place; where that fails, change nothing.

    Whatever else is changed or staged stays so, and is not in the commit.

    Args:
        project: Its `champion.dvc` is as committed.
        command: As its user calls it.
        pointer: To write.
        message: Of the commit.
        described: Completes the pointer by the content of the champion's `export.json`.

    Raises:
        ChangedPointerError: If `champion.dvc` is not as it is committed.
        RenateStagesError: If a step fails, as where neither cache nor remote has the model.
    """
    if git(project, "status", "--porcelain", "--", POINTER):
        raise ChangedPointerError
    with changing(project, command, changes=[POINTER], pointers=[POINTER]) as change:
        change.write(POINTER, pointer.text())
        change.secure(POINTER)
        if described is not None:
            named = listing(project, pointer.out["md5"]) or {}
            about = named.get(DESCRIPTION)
            pointer = described(cached(project, about).read_bytes() if about else b"")
            change.write(POINTER, pointer.text())
        change.commit(message(pointer))
    return pointer


def since(project: Project) -> str | None:
    """Return commit and day of the champion's promotion; None where it is not committed."""
    return git(project, "log", "-1", "--format=%h, %cs", "--", POINTER, check=False) or None
