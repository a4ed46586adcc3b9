"""Restore folders and DVC's cache to what Git names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from renate_stages import files
from renate_stages.errors import CommandError, StillDamagedError
from renate_stages.lineage.anchor import anchored, changed_pointers
from renate_stages.lineage.checkout import fetch
from renate_stages.lineage.content import Md5s, cached, listing
from renate_stages.lineage.records import is_fresh
from renate_stages.project import Project


def repair(project: Project, say: Callable[[str], None] = print) -> None:
    """Put back the pointers as committed, and the folders that they and `dvc.lock` name.

    What is damaged in DVC's cache is removed from it first: a checkout would put the damage back. It
    is then fetched from the remote. A folder that is as it should be is not touched.

    Args:
        project: The caller holds its lock.
        say: Is told what was done, line by line.

    Raises:
        StillDamagedError: If neither the cache nor the remote has what Git names.
    """
    for pointer, committed in changed_pointers(project).items():
        files.write_text(pointer, f"{committed}\n")
        say(f"{pointer.name}: as it is committed again")
    made = [] if is_fresh(project) else [project.state, project.export]
    for folder in (project.parent, project.champion, *made):
        named = anchored(project, folder)
        if named is None:
            continue
        name = project.relative(folder)
        if folder.is_dir() and not named.problems(project, deep=True):
            say(f"{name}/: is what {named.source} names")
            continue
        removed = _remove_damaged(project, named.md5)
        problem = ""
        try:
            fetch(project, named.target, force=True)
        except CommandError as error:
            problem = error.output.strip()
        problems = named.problems(project, deep=True) if folder.is_dir() else ["it is not there"]
        if problems:
            _remove_damaged(project, named.md5)  # what a damaged remote has sent
            raise StillDamagedError(name, named.source, problems, problem)
        also = f"; {removed} damaged object(s) left DVC's cache" if removed else ""
        say(f"{name}/: restored, as {named.source} records it{also}")


def _remove_damaged(project: Project, md5: str) -> int:
    """Remove from DVC's cache what does not have the content that its name says; return how many.

    Args:
        project: Whose cache is looked at.
        md5: Hash of a folder.
    """
    top = cached(project, md5)
    named = listing(project, md5)
    if named is None:
        if top.is_file():
            top.unlink()
            return 1
        return 0
    objects = {each: cached(project, each) for each in named.values()}
    present = {each: path for each, path in objects.items() if path.is_file()}
    found = Md5s(None).of_files(present)
    damaged = [present[each] for each, content in found.items() if content != each]
    for path in damaged:
        with suppress(FileNotFoundError):
            path.unlink()
    return len(damaged)
