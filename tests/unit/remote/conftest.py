"""A project whose stage `train` runs in a place that is a folder here."""

from __future__ import annotations

import shutil

import pytest
from jobs_elsewhere import Place, ready_for_training
from small_project import REPOSITORY

from renate_stages.files import yaml_file
from renate_stages.project import Project
from renate_stages.remote import package


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.setenv("RENATE_STAGES_POLL_SECONDS", "0")
    return Place(tmp_path / "bucket")


@pytest.fixture
def ready(tmp_path, place, monkeypatch) -> Project:
    """A project ready for `train`; it says that this runs in `place`."""
    project = Project(tmp_path / "project")
    project.root.mkdir()
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, project.root / name)
    ready_for_training(project)

    def change(content):
        content["remote"] = {"url": str(place.bucket)}
        content["tracking"]["enabled"] = False

    yaml_file.edit(project.params, change)
    monkeypatch.setattr(package, "wheel", lambda: ("ours-1-py3-none-any.whl", b"a wheel"))
    monkeypatch.setattr(package, "pins", pins)
    return project


def pins(requirements, without):
    """Stand for `package.pins`, which takes half a second to look at what is installed."""
    return [f"{name}==2" for name in ("numpy", "torch") if name not in without]
