"""`champion.dvc`: which update's `export/` serves, and which served before.

Its `meta`, which DVC leaves alone, lists the champions that were replaced, so that going back needs
no history: it works in a shallow clone and after a squash.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from renate_stages import files, yaml_file
from renate_stages.errors import (
    ChangedPointerError,
    CommandError,
    MalformedFileError,
    NoChampionPointerError,
)
from renate_stages.lineage.commands import fetch, git
from renate_stages.lineage.records import stage_entry
from renate_stages.project import Project

POINTER = "champion.dvc"
HASH_KEYS = ("md5", "size", "nfiles")


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
        return cls.parse(path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> ChampionPointer:
        """Read what `text` gives.

        Raises:
            MalformedFileError: If it is something else.
        """
        content = yaml_file.parse(text, POINTER)
        try:
            meta = content.get("meta") or {}
            out = {key: content["outs"][0][key] for key in HASH_KEYS}
            replaced = tuple(meta.get("replaced", ()))
            return cls(out, meta.get("update", 0), meta.get("state", ""), replaced)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            reason = f"expected one of outs, with {', '.join(HASH_KEYS)}"
            raise MalformedFileError(POINTER, "a pointer to a champion", reason) from error

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


def export_entry(lock: str) -> dict[str, Any] | None:
    """Return what a `dvc.lock` says of `export/`, or None where `export` has not finished."""
    entry = stage_entry(lock, "export", "outs", "export")
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
    pointer: ChampionPointer,
    message: Callable[[ChampionPointer], str],
    described: Callable[[ChampionPointer], ChampionPointer] = lambda pointer: pointer,
) -> ChampionPointer:
    """Put a champion in place and commit its pointer; nothing is changed where that fails.

    Whatever else is changed or staged stays so, and is not in the commit.

    Args:
        project: Its `champion.dvc` is as committed.
        pointer: To write.
        message: Of the commit.
        described: Completes the pointer once its folder is in place.

    Raises:
        ChangedPointerError: If `champion.dvc` is not as it is committed.
        CommandError: If neither cache nor remote has the model.
    """
    if git(project, "status", "--porcelain", "--", POINTER):
        raise ChangedPointerError
    before = project.champion_pointer.read_text(encoding="utf-8")
    files.write_text(project.champion_pointer, pointer.text())
    try:
        fetch(project, POINTER)
        pointer = described(pointer)
        files.write_text(project.champion_pointer, pointer.text())
        git(project, "commit", "--quiet", "-m", message(pointer), "--", POINTER)
    except BaseException:
        files.write_text(project.champion_pointer, before)
        git(project, "reset", "--quiet", "--", POINTER, check=False)
        with suppress(CommandError):  # what failed first is told
            fetch(project, POINTER)
        raise
    return pointer


def since(project: Project) -> str | None:
    """Return commit and day of the champion's promotion; None where it is not committed."""
    return git(project, "log", "-1", "--format=%h, %cs", "--", POINTER, check=False) or None
