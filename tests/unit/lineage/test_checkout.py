"""Checkout restores folders after a killed DVC process left an incomplete data index."""

from __future__ import annotations

import shutil

import pytest

from renate_stages import errors, lineage
from renate_stages.actions import resolve
from renate_stages.lineage.intent import Intent
from renate_stages.project import Project


def break_index(project: Project, folder: str) -> None:
    """Break the index as a killed DVC does: keep the folder's entry and drop its files."""
    from dvc.repo import Repo

    with Repo(str(project.root)) as repo:
        assert repo.index.data  # builds the index
        for key in [key for key, _ in repo.data_index.iteritems()]:
            if folder in key[:-1]:
                repo.data_index.delete_node(key)
        repo.data_index.commit()


@pytest.fixture
def broken(project) -> Project:
    lineage.dvc(project, "checkout", "--force", "parent.dvc")
    break_index(project, "parent-state")
    lineage.dvc(project, "checkout", "--force", "parent.dvc")
    assert not list(project.parent.glob("*")), "DVC removed the files silently"
    return project


def test_fetch_restores_a_folder_missing_from_the_dvc_index(broken):
    lineage.fetch(broken, "parent.dvc", force=True)
    assert lineage.check(broken, broken.parent, deep=True)


def test_fetch_error_names_files_that_dvc_did_not_restore(broken, monkeypatch):
    monkeypatch.setattr("renate_stages.lineage.checkout.drop_index", lambda project: None)
    with pytest.raises(errors.CommandError, match=r"not restored: .*state\.json"):
        lineage.fetch(broken, "parent.dvc", force=True)


def test_verify_repair_restores_a_folder_missing_from_the_dvc_index(broken, capsys):
    lineage.repair(broken)
    assert "parent-state/: restored" in capsys.readouterr().out
    assert lineage.check(broken, broken.parent, deep=True)


def test_resolving_an_interrupted_command_drops_the_dvc_index(broken):
    head = lineage.git(broken, "rev-parse", "HEAD")
    Intent(command="renate-stages promote", head=head, place="main").write(broken)
    assert resolve.recover(broken) is not None
    shutil.rmtree(broken.parent, ignore_errors=True)
    lineage.dvc(broken, "checkout", "parent.dvc")
    assert lineage.check(broken, broken.parent, deep=True)
