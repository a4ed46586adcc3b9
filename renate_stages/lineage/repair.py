"""Restore damaged folders and DVC's cache to the hashes in Git."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from renate_stages import files
from renate_stages.errors import CommandError, StillDamagedError
from renate_stages.errors.wording import counted
from renate_stages.lineage.anchor import anchored, changed_pointers
from renate_stages.lineage.checkout import fetch
from renate_stages.lineage.content import Md5s, cached, listing
from renate_stages.lineage.records import is_fresh
from renate_stages.project import Project


def repair(project: Project, say: Callable[[str], None] = print) -> None:
    """Restore the committed pointers, and the folders recorded in them and in `dvc.lock`.

    Damaged objects are removed from DVC's cache first, because a checkout would restore the damage;
    then they are fetched from the remote. A folder that matches its hash is not touched.

    Args:
        project: The project to repair; the caller holds its lock.
        say: Function that prints a line about each pointer and folder.

    Raises:
        StillDamagedError: If neither the cache nor the remote has the recorded content.
    """
    for pointer, committed in changed_pointers(project).items():
        files.write_text(pointer, f"{committed}\n")
        say(f"{pointer.name}: committed version restored")
    outputs = [] if is_fresh(project) else [project.state, project.export]
    for folder in (project.parent, project.champion, *outputs):
        anchor = anchored(project, folder)
        if anchor is None:
            continue
        name = project.relative(folder)
        if folder.is_dir() and not anchor.problems(project, deep=True):
            say(f"{name}/: matches the hash in {anchor.source}")
            continue
        removed = _remove_damaged(project, anchor.md5)
        problem = ""
        try:
            fetch(project, anchor.target, force=True)
        except CommandError as error:
            problem = error.output.strip()
        problems = (
            anchor.problems(project, deep=True) if folder.is_dir() else ["the folder is missing"]
        )
        if problems:
            _remove_damaged(project, anchor.md5)  # objects from a damaged remote
            raise StillDamagedError(name, anchor.source, problems, problem)
        also = f"; {counted(removed, 'damaged object')} removed from DVC's cache" if removed else ""
        say(f"{name}/: restored to the hash in {anchor.source}{also}")


def _remove_damaged(project: Project, md5: str) -> int:
    """Remove the objects of a folder whose content does not match their hash from DVC's cache.

    Args:
        project: The project whose cache to check.
        md5: Hash of the folder.

    Returns:
        The number of objects removed.
    """
    top = cached(project, md5)
    hashes = listing(project, md5)
    if hashes is None:
        if top.is_file():
            top.unlink()
            return 1
        return 0
    objects = {file_md5: cached(project, file_md5) for file_md5 in hashes.values()}
    present = {file_md5: path for file_md5, path in objects.items() if path.is_file()}
    actual = Md5s(None).of_files(present)
    damaged = [present[expected] for expected, content in actual.items() if content != expected]
    for path in damaged:
        with suppress(FileNotFoundError):
            path.unlink()
    return len(damaged)
