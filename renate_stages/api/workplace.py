"""The temporary project folder in which `run_training_job` runs the stages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from renate_stages import files
from renate_stages.api.locations import link_folder
from renate_stages.errors import ForeignFolderError
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.project import Outside, Project
from renate_stages.state import state


@contextmanager
def workplace(root: Path | None, parent_folder: Path, outside: Outside) -> Iterator[Project]:
    """Yield a project folder, and remove it when the job has succeeded.

    Args:
        root: A folder that remains if the job is killed, used by one job at a time; None: a
            temporary folder.
        parent_folder: Parent directory of a temporary folder.
        outside: User code and data outside the folder that the stages read.

    Raises:
        ForeignFolderError: If `root` contains files that no search wrote.
    """
    parent_folder.mkdir(parents=True, exist_ok=True)
    if root is None:
        with TemporaryDirectory(prefix=".update-", dir=parent_folder) as scratch:
            yield _project(Path(scratch), outside)
        return
    project = _project(root, outside)
    if root.is_dir() and any(root.iterdir()) and not project.scratch.is_dir():
        raise ForeignFolderError(root)  # because it would be removed at the end
    root.mkdir(parents=True, exist_ok=True)
    with project.lock("search of run_training_job"):
        yield project
        shutil.rmtree(root)


def lay_out(
    project: Project, params: Params, source: Path | None, *, removable: bool = False
) -> None:
    """Write the parameters and link the parent; keep only the trials of an earlier job.

    Args:
        project: The workplace.
        params: Written to its `params.yaml`.
        source: Folder of the state to start from; None: the empty state.
        removable: Whether other jobs may remove `source` while this one runs. If so, each file is
            linked on its own instead of the whole folder.
    """
    for path in project.root.iterdir():
        if path.is_dir() and not path.is_symlink() and path != project.scratch:
            shutil.rmtree(path)
        elif path != project.scratch:
            path.unlink()
    if source is not None and removable:
        link_folder(source, project.parent)
    elif source is not None:
        project.parent.symlink_to(source.resolve(), target_is_directory=True)
    else:
        project.parent.mkdir()
        state.write_empty(project.parent)
    project.write_outside()
    content = params.model_dump(mode="json", exclude_defaults=True)  # parsing all takes 25 ms
    files.write_text(project.params, yaml_file.dump(content))


def _project(root: Path, outside: Outside) -> Project:
    root = root.resolve()
    return Project(root, replace(outside, ignored=(*outside.ignored, root)))
