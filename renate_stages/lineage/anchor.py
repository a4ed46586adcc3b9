"""Compare folders that stages read with the hashes in Git.

    parent-state/   parent.dvc      which must be as it is committed
    champion/       champion.dvc    likewise
    state/, export/ dvc.lock

A `state.json` describes its folder, and does not vouch for it: whoever changes a file can change that
too. DVC does not check what it finds: it pulls an object by its name, and `dvc repro` writes the hash
of a changed `parent-state/` into `parent.dvc`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from renate_stages import files
from renate_stages.errors import ChangedFolderError, RenateStagesError, UncommittedPointerError
from renate_stages.files import yaml_file
from renate_stages.lineage.commands import git
from renate_stages.lineage.content import Md5s, files_under, folder_hash, listing
from renate_stages.lineage.definition import StageDefinition
from renate_stages.lineage.records import is_fresh, lock_text, read_pointer, stage_entry
from renate_stages.project import Project


@dataclass(frozen=True)
class Anchored:
    """A folder, and the hash of what it should hold.

    Args:
        folder: It.
        md5: The hash, as DVC computes it.
        source: The file in Git that names it.
        target: What DVC calls it: the pointer, or the output of the pipeline.
    """

    folder: Path
    md5: str
    source: str
    target: str

    def problems(
        self, project: Project, parts: Iterable[str] = (), *, deep: bool = False
    ) -> list[str]:
        """Return what differs from what Git names; empty where nothing does.

        Args:
            project: Where the folder is.
            parts: Files and folders in it that are looked at; none: all of it.
            deep: Read every file, also those that have not changed since they were last read.
        """
        named = listing(project, self.md5)
        parts = tuple(parts) if named is not None else ()  # without a list, only the whole is known
        present = files_under(self.folder, parts)
        found = (Md5s(None) if deep else Md5s.of(project)).of_files(present)
        if named is None:
            same = folder_hash(found) == self.md5
            return [] if same else [f"the hash of the folder is {folder_hash(found)}"]
        wanted = {name: md5 for name, md5 in named.items() if not parts or _is_in(name, parts)}
        missing = [f"{name}: missing" for name in wanted if name not in found]
        changed = [
            f"{n}: its content differs" for n, md5 in found.items() if wanted.get(n, md5) != md5
        ]
        extra = [f"{name}: not part of it" for name in found if name not in wanted]
        return sorted(missing + changed + extra)


def _is_in(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}/") for part in parts)


def anchored(project: Project, folder: Path) -> Anchored | None:
    """Return a folder with the hash that Git names; None where nothing names it.

    Raises:
        UncommittedPointerError: If there is a pointer that no commit has.
        MalformedFileError: If the pointer or `dvc.lock` cannot be read.
    """
    name = project.relative(folder)
    pointer = _pointers(project).get(folder)
    if pointer is not None:
        if not pointer.is_file():
            return None
        committed = read_pointer(_committed(project, pointer), pointer.name)
        return Anchored(folder, committed["md5"], pointer.name, pointer.name)
    stage = {project.state: "train", project.export: "export"}[folder]
    entry = stage_entry(lock_text(project), stage, "outs", name)
    return Anchored(folder, entry["md5"], "dvc.lock", name) if entry else None


def _pointers(project: Project) -> dict[Path, Path]:
    return {project.parent: project.parent_pointer, project.champion: project.champion_pointer}


def _committed(project: Project, pointer: Path) -> str:
    """Return the text of a pointer as it is committed.

    Raises:
        UncommittedPointerError: If no commit has it.
    """
    born = git(project, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if not born or not git(project, "ls-tree", "HEAD", "--", pointer.name):
        raise UncommittedPointerError(pointer.name)
    return git(project, "show", f"HEAD:./{pointer.name}")


def changed_pointers(project: Project) -> dict[Path, str]:
    """Return the pointers that are not as they are committed, with their committed text.

    Nobody but our commands writes pointers, and they commit what they write. But `dvc repro` takes a
    folder under a `.dvc` file for new data: before the first stage runs it writes the hash of what it
    finds there into the file.
    """
    found = {}
    for pointer in _pointers(project).values():
        if pointer.is_file():
            committed = _committed(project, pointer)
            if _hash_in(yaml_file.text(pointer)) != _hash_in(committed):
                found[pointer] = committed
    return found


def _hash_in(text: str) -> str | None:
    """Return the hash in a pointer's text; None where it cannot be read."""
    with suppress(RenateStagesError):
        return read_pointer(text, "a pointer")["md5"]
    return None


def folders_to_verify(project: Project) -> list[Path]:
    """Return the folders here that should be what Git names.

    Until the open update has run, `dvc.lock` is its parent's; `state/` and `export/` may be those of
    another update, as after `next --from`, and nothing reads them.
    """
    made = [] if is_fresh(project) else [project.state, project.export]
    return [folder for folder in (project.parent, project.champion, *made) if folder.is_dir()]


def check_inputs(project: Project, stage: str) -> None:
    """Refuse, before a stage works, folders that are not what Git names.

    A pointer that `dvc repro` has changed is put back first, so that nothing is.

    Args:
        project: One that is no DVC repository, such as a job's working folder, has nothing to check.
        stage: What it depends on in `dvc.yaml` is checked.

    Raises:
        UncommittedPointerError: If there is a pointer that no commit has.
        ChangedFolderError: With every file that differs.
    """
    if not (project.root / ".dvc").is_dir():
        return
    for pointer, committed in changed_pointers(project).items():
        files.write_text(pointer, f"{committed}\n")
        print(f"warning: {pointer.name} was changed, and is as committed again", file=sys.stderr)
    reads = StageDefinition.read(project, stage).reads
    for folder in (project.parent, project.champion, project.state):
        name = project.relative(folder)
        parts = [read.removeprefix(name).strip("/") for read in reads if _is_in(read, [name])]
        if parts and folder.is_dir():
            check(project, folder, () if "" in parts else parts)


def check(project: Project, folder: Path, parts: Iterable[str] = (), *, deep: bool = False) -> bool:
    """Refuse a folder that is not what Git names.

    Args:
        project: Where it is.
        folder: `parent-state/`, `champion/`, `state/` or `export/`.
        parts: Files and folders in it that are looked at; none: all of it.
        deep: Read every file, also those that have not changed since they were last read.

    Returns:
        Whether something names it.

    Raises:
        UncommittedPointerError: If there is a pointer that no commit has.
        ChangedFolderError: With every file that differs.
    """
    named = anchored(project, folder)
    if named is None:
        return False
    if problems := named.problems(project, parts, deep=deep):
        raise ChangedFolderError(project.relative(folder), named.source, problems)
    return True
