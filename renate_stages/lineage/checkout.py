"""Put folders in place with DVC, and check that it did.

DVC keeps an index of the files of folders outside the project. A DVC that is killed can leave folders in
it without their files. Then `dvc checkout` takes these folders to be empty: it removes their files or does
not restore them, and ends without an error.
"""

from __future__ import annotations

from contextlib import suppress

from renate_stages.errors import CommandError
from renate_stages.files import yaml_file
from renate_stages.lineage.commands import dvc
from renate_stages.lineage.content import files_under, listing
from renate_stages.lineage.records import lock_text, read_pointer, stage_entry
from renate_stages.project import Project

MOST_NAMED = 5  # missing files in a message
MAKING = {"state": "train", "export": "export"}  # the stage that writes an output


def fetch(project: Project, target: str, *, force: bool = False) -> None:
    """Put what a `.dvc` file names in place, from the cache or else from the remote.

    Args:
        project: Where it is.
        target: The `.dvc` file, or an output of the pipeline.
        force: Whether a changed file in its place is replaced.

    Raises:
        CommandError: If neither has it, a changed file is in its place, or DVC did not restore it.
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
        named = ", ".join(missing[:MOST_NAMED])
        raise CommandError(["dvc", "checkout", target], f"it restored all but {named}")


def drop_index(project: Project) -> None:
    """Have DVC forget its index of files; it makes a new one when it needs it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    # What goes wrong here, such as another DVC at work, also stops the next command, which says so.
    with suppress(DvcException), Repo(str(project.root)) as repo, repo.lock:
        repo.drop_data_index()


def _missing(project: Project, target: str) -> list[str]:
    """Return the files that a target names and that are not in place, as far as the cache lists them."""
    if target in MAKING:
        entry, folder = stage_entry(lock_text(project), MAKING[target], "outs", target), target
    else:
        entry = read_pointer(yaml_file.text(project.root / target), target)
        folder = str((project.root / target).parent / entry["path"])
    named = listing(project, entry["md5"]) if entry else None
    present = files_under(project.root / folder)
    return sorted(name for name in named or () if name not in present)
