"""A small repository with three updates, built once and copied for each test."""

from __future__ import annotations

import subprocess

import pytest
from small_lineage import make_three_updates
from warm_processes import WarmDvc

from renate_stages.lineage import commands
from renate_stages.project import Project


@pytest.fixture(scope="package", autouse=True)
def warm_dvc():
    """Run real DVC in warm processes, because a hundred commands would import it for 0.5 s each."""
    warm = WarmDvc()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "subprocess", warm)
        yield
    warm.close()


@pytest.fixture(scope="package", autouse=True)
def template(warm_dvc, tmp_path_factory, request):
    """Build a project with two tagged updates, a third that has run, and no champion."""
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    for who in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{who}_NAME", "Test")
        patch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
    return make_three_updates(tmp_path_factory.mktemp("small") / "project")


@pytest.fixture
def project(template, tmp_path) -> Project:
    root = tmp_path / "project"
    subprocess.run(["cp", "-a", template.root, root], check=True)
    return Project(root)
