from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from renate_stages.tracking import provenance_tags


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-b", "main")
    (tmp_path / ".gitignore").write_text("state/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "start")
    return tmp_path


def test_clean_repository_is_tagged_with_commit_and_branch(repository):
    assert provenance_tags(repository) == {
        "git.commit": git(repository, "rev-parse", "HEAD").strip(),
        "git.branch": "main",
        "git.dirty": "false",
    }


def test_untracked_and_changed_files_are_dirty_but_ignored_files_are_not(repository):
    (repository / "state").mkdir()
    (repository / "state" / "model").touch()
    assert provenance_tags(repository)["git.dirty"] == "false"
    (repository / "new.py").touch()
    assert provenance_tags(repository)["git.dirty"] == "true"
    (repository / "new.py").unlink()
    (repository / ".gitignore").write_text("state\n")
    assert provenance_tags(repository)["git.dirty"] == "true"


def test_detached_head_has_no_branch_tag(repository):
    git(repository, "checkout", "--detach")
    assert set(provenance_tags(repository)) == {"git.commit", "git.dirty"}


def test_repository_without_commits_has_no_commit_tag(tmp_path):
    git(tmp_path, "init", "-b", "main")
    assert provenance_tags(tmp_path) == {"git.branch": "main", "git.dirty": "false"}


def test_folder_outside_a_repository_has_no_tags(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance_tags(tmp_path) == {}


def test_missing_git_command_gives_no_tags(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance_tags(repository) == {}


def test_dvc_experiment_name_is_tagged(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-seed")
    assert provenance_tags(tmp_path) == {"dvc.exp.name": "bumpy-seed"}
