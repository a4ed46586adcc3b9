"""A temporary folder with the layout of a project, for the time of one `run_training_job`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from renate_stages import files
from renate_stages.api.locations import link
from renate_stages.errors import ForeignFolderError
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.project import Outside, Project
from renate_stages.state import state


@contextmanager
def workplace(root: Path | None, beside: Path, outside: Outside) -> Iterator[Project]:
    """Yield a folder laid out as a project's, that is gone when all went well.

    Args:
        root: A folder that stays when the job is killed, for one job at a time; None: a passing one.
        beside: Where a passing one lies.
        outside: What the stages read from elsewhere.
    """
    beside.mkdir(parents=True, exist_ok=True)
    if root is None:
        with TemporaryDirectory(prefix=".update-", dir=beside) as scratch:
            yield _project(Path(scratch), outside)
        return
    project = _project(root, outside)
    if root.is_dir() and any(root.iterdir()) and not project.scratch.is_dir():
        raise ForeignFolderError(root)  # it is removed in the end
    root.mkdir(parents=True, exist_ok=True)
    with project.lock("search of run_training_job"):
        yield project
        shutil.rmtree(root)


def lay_out(project: Project, params: Params, source: Path | None, *, may_go: bool = False) -> None:
    """Write the parameters, and link the parent; of an earlier job only its trials stay.

    Args:
        project: The workplace.
        params: Written as its `params.yaml`.
        source: The state to start from; None: the empty one.
        may_go: Whether other jobs may displace it while this one runs: then its files are linked.
    """
    work = project.prepared.parent
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    if project.parent.is_symlink():
        project.parent.unlink()
    shutil.rmtree(project.parent, ignore_errors=True)
    if source is not None and may_go:
        shutil.copytree(source, project.parent, copy_function=link)
    elif source is not None:
        project.parent.symlink_to(source.resolve(), target_is_directory=True)
    else:
        project.parent.mkdir()
        state.write_empty(project.parent)
    project.write_outside()
    files.write_text(project.params, yaml_file.dump(params.model_dump(mode="json")))


def _project(root: Path, outside: Outside) -> Project:
    root = root.resolve()
    return Project(root, replace(outside, ignored=(*outside.ignored, root)))
