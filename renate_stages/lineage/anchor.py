"""Compare the folders that stages read with the hashes in Git.

    folder            hash in
    parent-state/     parent.dvc, as committed
    champion/         champion.dvc, as committed
    state/, export/   dvc.lock

The manifest `state.json` is not enough: whoever changes a file can change the manifest too. DVC does
not check contents either: it pulls objects by name, and `dvc repro` writes the hash of a changed
`parent-state/` into `parent.dvc`.
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
    """A folder and the hash that its content should have.

    Args:
        folder: Path of the folder.
        md5: The expected hash, as DVC computes it.
        source: The file in Git that records the hash.
        target: Name of the folder for DVC commands: its pointer file, or the pipeline output.
    """

    folder: Path
    md5: str
    source: str
    target: str

    def problems(
        self, project: Project, parts: Iterable[str] = (), *, deep: bool = False
    ) -> list[str]:
        """Return the differences from the recorded hash, one line each; empty without differences.

        Args:
            project: The project that the folder belongs to.
            parts: Files and folders in it to check; empty: check the whole folder.
            deep: Read every file, even if it has not changed since it was last read.
        """
        expected = listing(project, self.md5)
        # Without DVC's list of files, only the hash of the whole folder is known.
        parts = tuple(parts) if expected is not None else ()
        present = files_under(self.folder, parts)
        actual = (Md5s(None) if deep else Md5s.of(project)).of_files(present)
        if expected is None:
            same = folder_hash(actual) == self.md5
            return [] if same else [f"the hash of the folder is {folder_hash(actual)}"]
        expected = {name: md5 for name, md5 in expected.items() if not parts or _is_in(name, parts)}
        missing = [f"{name}: missing" for name in expected if name not in actual]
        changed = [
            f"{n}: its content differs" for n, md5 in actual.items() if expected.get(n, md5) != md5
        ]
        extra = [f"{name}: unexpected file" for name in actual if name not in expected]
        return sorted(missing + changed + extra)


def _is_in(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}/") for part in parts)


def anchored(project: Project, folder: Path) -> Anchored | None:
    """Return a folder with the hash recorded in Git, or None if no hash is recorded.

    Raises:
        UncommittedPointerError: If the folder's pointer file is not committed.
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
    """Return the committed text of a pointer file.

    Raises:
        UncommittedPointerError: If the file is not committed.
    """
    born = git(project, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if not born or not git(project, "ls-tree", "HEAD", "--", pointer.name):
        raise UncommittedPointerError(pointer.name)
    return git(project, "show", f"HEAD:./{pointer.name}")


def changed_pointers(project: Project) -> dict[Path, str]:
    """Return the pointer files that differ from their committed version, with the committed text.

    Only our commands should write pointers, and they commit them. But `dvc repro` treats a changed
    folder with a `.dvc` file as new data: before the first stage runs, it writes the hash of the
    folder's present content into the file.
    """
    changed = {}
    for pointer in _pointers(project).values():
        if pointer.is_file():
            committed = _committed(project, pointer)
            if _hash_in(yaml_file.text(pointer)) != _hash_in(committed):
                changed[pointer] = committed
    return changed


def _hash_in(text: str) -> str | None:
    """Return the hash in a pointer's text, or None if it cannot be read."""
    with suppress(RenateStagesError):
        return read_pointer(text, "a pointer")["md5"]
    return None


def folders_to_verify(project: Project) -> list[Path]:
    """Return the existing folders whose content must match a hash in Git.

    Until the open update has run, `dvc.lock` is its parent's. Then `state/` and `export/` may belong
    to another update, for example after `next --from`, and no stage reads them.
    """
    made = [] if is_fresh(project) else [project.state, project.export]
    return [folder for folder in (project.parent, project.champion, *made) if folder.is_dir()]


def check_inputs(project: Project, stage: str) -> None:
    """Check that the folders that a stage reads match their hashes in Git.

    If `dvc repro` has changed a pointer, its committed text is restored first.

    Args:
        project: The project; without `.dvc`, as in a job's working folder, nothing is checked.
        stage: Name of the stage; its `deps` in `dvc.yaml` are checked.

    Raises:
        UncommittedPointerError: If a pointer file is not committed.
        ChangedFolderError: If files differ; lists all of them.
    """
    if not (project.root / ".dvc").is_dir():
        return
    for pointer, committed in changed_pointers(project).items():
        files.write_text(pointer, f"{committed}\n")
        print(
            f"warning: {pointer.name} had changed; its committed version was restored",
            file=sys.stderr,
        )
    reads = StageDefinition.read(project, stage).reads
    for folder in (project.parent, project.champion, project.state):
        name = project.relative(folder)
        parts = [read.removeprefix(name).strip("/") for read in reads if _is_in(read, [name])]
        if parts and folder.is_dir():
            check(project, folder, () if "" in parts else parts)


def check(project: Project, folder: Path, parts: Iterable[str] = (), *, deep: bool = False) -> bool:
    """Check that a folder matches its hash in Git.

    Args:
        project: The project that the folder belongs to.
        folder: `parent-state/`, `champion/`, `state/` or `export/`.
        parts: Files and folders in it to check; empty: check the whole folder.
        deep: Read every file, even if it has not changed since it was last read.

    Returns:
        Whether a hash is recorded for the folder.

    Raises:
        UncommittedPointerError: If the folder's pointer file is not committed.
        ChangedFolderError: If files differ; lists all of them.
    """
    anchor = anchored(project, folder)
    if anchor is None:
        return False
    if problems := anchor.problems(project, parts, deep=deep):
        raise ChangedFolderError(project.relative(folder), anchor.source, problems)
    return True
