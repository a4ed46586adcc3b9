"""Fixtures: a project whose stage `train` runs at a fake cloud provider with a local bucket."""

from __future__ import annotations

import shutil

import pytest
from jobs_elsewhere import FakeProvider, write_training_inputs
from small_project import REPOSITORY

from renate_stages.files import yaml_file
from renate_stages.project import Project
from renate_stages.remote import package


@pytest.fixture
def provider(tmp_path, monkeypatch) -> FakeProvider:
    monkeypatch.setenv("RENATE_STAGES_POLL_SECONDS", "0")
    return FakeProvider(tmp_path / "bucket")


@pytest.fixture
def ready(tmp_path, provider, monkeypatch) -> Project:
    """A project with all inputs of `train`, which is configured to run at `provider`."""
    project = Project(tmp_path / "project")
    project.root.mkdir()
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, project.root / name)
    write_training_inputs(project)

    def change(content):
        content["remote"] = {"url": str(provider.bucket)}
        content["tracking"]["enabled"] = False

    yaml_file.edit(project.params, change)
    monkeypatch.setattr(package, "wheel", lambda: ("ours-1-py3-none-any.whl", b"a wheel"))
    monkeypatch.setattr(package, "pins", pins)
    return project


def pins(requirements, without):
    """Replace `package.pins`, which takes half a second to inspect the installed packages."""
    return [f"{name}==2" for name in ("numpy", "torch") if name not in without]
