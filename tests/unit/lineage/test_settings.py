"""DVC's cache and remote settings, read without importing DVC."""

from __future__ import annotations

from pathlib import Path

import pytest

from renate_stages import errors, lineage
from renate_stages.lineage.settings import cache_folder, settle_remote, unsettled_remote


@pytest.fixture
def config_files(project, tmp_path, monkeypatch) -> dict[str, Path]:
    """Return DVC's config files by level, highest precedence first."""
    for level in ("GLOBAL", "SYSTEM"):
        (tmp_path / level).mkdir()
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / level))
    own = project.root / ".dvc"
    return {
        "local": own / "config.local",
        "project": own / "config",
        "global": tmp_path / "GLOBAL" / "config",
        "system": tmp_path / "SYSTEM" / "config",
    }


def dvc_cache_folder(project) -> Path:
    return (project.root / lineage.dvc(project, "cache", "dir")).resolve()


@pytest.mark.parametrize("given", ["absolute", "relative", "../../relative"])
@pytest.mark.parametrize("level", ["local", "project", "global", "system"])
def test_cache_folder_equals_the_one_reported_by_dvc(project, config_files, tmp_path, level, given):
    assert cache_folder(project).resolve() == dvc_cache_folder(project)
    named = str(tmp_path / "cache") if given == "absolute" else given
    config_files[level].write_text(f'[cache]\n    dir = {named}\n    type = "reflink,copy"\n')
    assert cache_folder(project).resolve() == dvc_cache_folder(project)


def test_cache_setting_of_the_more_specific_config_file_wins(project, config_files, tmp_path):
    for name, place in reversed(config_files.items()):
        place.write_text(f"[cache]\n    dir = {tmp_path / name}\n")
        assert cache_folder(project).resolve() == dvc_cache_folder(project) == tmp_path / name


def test_unreadable_dvc_config_is_reported(project, config_files):
    config_files["project"].write_text("[cache\n")
    with pytest.raises(errors.MalformedFileError, match=r"\.dvc/config cannot be read"):
        cache_folder(project)


def remote_of(project) -> str:
    return lineage.dvc(project, "config", "remote.storage.url")


def test_relative_remote_is_resolved_when_older_updates_are_pushed(project, tmp_path):
    """DVC resolved the relative path in a tag's config against `/` and pushed there."""
    lineage.dvc(project, "remote", "add", "--default", "storage", "../kept-by-dvc-for-a-test")
    lineage.git(project, "commit", "-qam", "A remote")
    lineage.git(project, "tag", "-f", "update-2")
    assert (
        settle_remote(project)
        == f"dvc: this clone uses the remote {tmp_path}/kept-by-dvc-for-a-test"
    )
    assert settle_remote(project) is None and unsettled_remote(project) is None
    lineage.dvc(project, "push", "--quiet", "--all-tags")
    assert (tmp_path / "kept-by-dvc-for-a-test" / "files").is_dir()
    assert not Path("/kept-by-dvc-for-a-test").exists()


def test_relative_remote_is_updated_after_the_project_moves(project, tmp_path):
    lineage.dvc(project, "remote", "add", "--default", "storage", "../remote")
    settle_remote(project)
    project.root.rename(tmp_path / "deeper")
    moved = type(project)(tmp_path / "deeper")
    assert unsettled_remote(moved) is None, "the remote is still next to the project"
    (tmp_path / "away").mkdir()
    moved.root.rename(tmp_path / "away" / "project")
    moved = type(project)(tmp_path / "away" / "project")
    assert "renate-stages init" in (unsettled_remote(moved) or "")
    assert settle_remote(moved) == f"dvc: this clone uses the remote {tmp_path}/away/remote"


def test_remote_changed_to_a_bucket_replaces_the_local_setting(project):
    """The local setting for the relative path used to override the bucket silently."""
    lineage.dvc(project, "remote", "add", "--default", "storage", "../remote")
    settle_remote(project)
    lineage.dvc(project, "remote", "modify", "storage", "url", "s3://bucket/folder")
    assert "the project's remote is s3://bucket/folder" in (unsettled_remote(project) or "")
    expected = "dvc: this clone now uses the project's remote s3://bucket/folder"
    assert settle_remote(project) == expected
    assert remote_of(project) == "s3://bucket/folder"
    assert unsettled_remote(project) is None


def test_local_remote_path_chosen_by_the_user_is_kept(project, tmp_path):
    lineage.dvc(project, "remote", "add", "--default", "storage", "../remote")
    mine = str(tmp_path / "mine")
    lineage.dvc(project, "remote", "modify", "--local", "storage", "url", mine)
    assert settle_remote(project) is None and unsettled_remote(project) is None
    assert remote_of(project) == mine
