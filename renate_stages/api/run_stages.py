"""Run the stages of a `run_training_job`, locally or in the cloud."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import SharedTrainingError, StageProcessError
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote import cloud
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.training import launch

CONFIG = "renate_config.py"
PIPELINE = Path(__file__).with_name("dvc.yaml")
"""The pipeline of a generated project; a test compares it with the template's."""


def run_stages(
    project: Project, params: Params, *, in_cloud: bool, files_for_jobs: Mapping[str, Path]
) -> None:
    """Run prepare, restore-state, tune and train.

    Args:
        project: The workplace, which already contains the parent state.
        params: The content of its `params.yaml`.
        in_cloud: Whether the search and the training run as cloud jobs.
        files_for_jobs: Further files and folders for cloud jobs, by path in their project folder.

    Raises:
        SharedTrainingError: If one of several training processes failed; it has printed why.
        RenateStagesError: If a stage fails.
    """
    prepare.run(project)
    restore_state.run(project)
    if in_cloud:
        project = self_contained(project, files_for_jobs)
    if in_cloud and params.search_space:
        cloud.run(project, params, "tune")
    else:
        tune.run(project)
    if in_cloud:
        cloud.run(project, params, "train")
    elif launch.is_to_launch(params):
        with project.empty_scratch("launched") as scratch:
            command = ["-m", "renate_stages.api.one_stage", str(project.root), "train"]
            if code := launch.start(command, params.trainer.devices, scratch):
                raise SharedTrainingError(code)
    else:
        train.run(project)


def run_export(project: Project, kept: str | Path | None) -> None:
    """Run export in a new process, so that only what it needs of the user's code is imported.

    Args:
        project: The workplace, in which the other stages have run.
        kept: Where the new state is, for the error; None if it is not kept.

    Raises:
        StageProcessError: If the process failed; it has printed why.
    """
    command = [sys.executable, "-P", "-m", "renate_stages.api.one_stage"]
    done = subprocess.run([*command, str(project.root), "export"], check=False)
    if done.returncode:
        raise StageProcessError("export", done.returncode, kept)


def _link(source: str | Path, target: str | Path) -> None:
    """Link or copy a file, unless the target exists already because the user's code imports it."""
    if not Path(target).exists():
        files.link_or_copy(Path(source), Path(target))


def self_contained(project: Project, files_for_jobs: Mapping[str, Path]) -> Project:
    """Turn a workplace into a self-contained project, whose stages can run on another machine.

    Link the user's code and `files_for_jobs` into it, and write a `dvc.yaml` that lists them as
    dependencies.
    """
    assert project.outside is not None, "a workplace reads the user's code from outside"
    code = sorted(name for name in project.outside.user_files if name != project.user_config.name)
    files.link_or_copy(project.user_config, project.root / CONFIG)
    for name in code:
        files.link_or_copy(project.user_config.parent / name, project.root / name)
    for name, source in files_for_jobs.items():
        target = project.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored, copy_function=_link, dirs_exist_ok=True)
        else:
            _link(source, target)
    code = sorted({*code, *files_for_jobs})
    pipeline: dict[str, Any] = yaml_file.read(PIPELINE)
    stages = pipeline["stages"]
    for stage in stages.values():
        if CONFIG in stage["deps"]:
            stage["deps"] += code
        stage["deps"] = [name for name in stage["deps"] if name != project.forget_list.name]
    files.write_text(project.pipeline, yaml_file.dump({"stages": stages}))
    return project.without_outside()
