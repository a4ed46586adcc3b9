"""Check out folders with DVC and verify that all files are restored.

DVC keeps an index of folders and their files outside the project. A DVC process that is killed can
leave folders without their files in the index. `dvc checkout` then believes that these folders are
empty: it removes their files, or does not restore them, and reports no error.
"""

from __future__ import annotations

from contextlib import suppress

from renate_stages.errors import CommandError
from renate_stages.files import yaml_file
from renate_stages.lineage.commands import dvc
from renate_stages.lineage.content import files_under, listing
from renate_stages.lineage.records import lock_text, read_pointer, stage_entry
from renate_stages.project import Project

MOST_NAMED = 5  # missing files to list in a message
MAKING = {"state": "train", "export": "export"}  # the stage that writes an output


def fetch(project: Project, target: str, *, force: bool = False) -> None:
    """Check out a `.dvc` file or a pipeline output from the cache; if it is not there, pull it.

    Args:
        project: The project to check out in.
        target: The `.dvc` file, or the name of the output.
        force: Whether to replace files that have changed.

    Raises:
        CommandError: If neither cache nor remote has all files, if a changed file is in the way, or
            if DVC did not restore all files.
    """
    options = ["--force"] if force else []
    try:
        dvc(project, "checkout", *options, target)
    except CommandError:
        dvc(project, "pull", *options, target)
    if _missing(project, target):
        drop_index(project)
        dvc(project, "checkout", *options, target)
    if missing := _missing(project, target):
        shown = ", ".join(missing[:MOST_NAMED])
        raise CommandError(["dvc", "checkout", target], f"not restored: {shown}")


def drop_index(project: Project) -> None:
    """Delete DVC's index of files; DVC builds a new one when it needs it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    # An error here, such as another running DVC process, also stops the next command, which reports
    # it.
    with suppress(DvcException), Repo(str(project.root)) as repo, repo.lock:
        repo.drop_data_index()


def _missing(project: Project, target: str) -> list[str]:
    """Return the files of a target that are missing in the working tree.

    The result is empty if the cache has no list of the target's files.
    """
    if target in MAKING:
        entry, folder = stage_entry(lock_text(project), MAKING[target], "outs", target), target
    else:
        entry = read_pointer(yaml_file.text(project.root / target), target)
        folder = str((project.root / target).parent / entry["path"])
    expected = listing(project, entry["md5"]) if entry else None
    present = files_under(project.root / folder)
    return sorted(name for name in expected or () if name not in present)
