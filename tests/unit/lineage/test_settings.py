"""DVC's settings, read without importing DVC: its cache and its remote."""

from __future__ import annotations

from pathlib import Path

import pytest

from renate_stages import errors, lineage
from renate_stages.lineage.settings import cache_folder, settle_remote, unsettled_remote


@pytest.fixture
def places(project, tmp_path, monkeypatch) -> dict[str, Path]:
    """DVC's files of settings, the first of which goes before the others."""
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


def dvcs_own(project) -> Path:
    return (project.root / lineage.dvc(project, "cache", "dir")).resolve()


@pytest.mark.parametrize("given", ["absolute", "relative", "../../relative"])
@pytest.mark.parametrize("level", ["local", "project", "global", "system"])
def test_the_cache_is_where_dvc_has_it(project, places, tmp_path, level, given):
    assert cache_folder(project).resolve() == dvcs_own(project)
    named = str(tmp_path / "cache") if given == "absolute" else given
    places[level].write_text(f'[cache]\n    dir = {named}\n    type = "reflink,copy"\n')
    assert cache_folder(project).resolve() == dvcs_own(project)


def test_the_nearer_setting_of_the_cache_goes_first(project, places, tmp_path):
    for name, place in reversed(places.items()):
        place.write_text(f"[cache]\n    dir = {tmp_path / name}\n")
        assert cache_folder(project).resolve() == dvcs_own(project) == tmp_path / name


def test_settings_that_cannot_be_read_are_named(project, places):
    places["project"].write_text("[cache\n")
    with pytest.raises(errors.MalformedFileError, match=r"\.dvc/config cannot be read"):
        cache_folder(project)


def remote_of(project) -> str:
    return lineage.dvc(project, "config", "remote.storage.url")


def test_a_relative_remote_is_found_for_older_updates_too(project, tmp_path):
    """DVC read the relative path out of a tag's settings, and pushed to a folder in `/`."""
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


def test_a_project_that_moves_has_its_remote_next_to_it(project, tmp_path):
    lineage.dvc(project, "remote", "add", "--default", "storage", "../remote")
    settle_remote(project)
    project.root.rename(tmp_path / "deeper")
    moved = type(project)(tmp_path / "deeper")
    assert unsettled_remote(moved) is None, "it is still next to it"
    (tmp_path / "away").mkdir()
    moved.root.rename(tmp_path / "away" / "project")
    moved = type(project)(tmp_path / "away" / "project")
    assert "renate-stages init" in (unsettled_remote(moved) or "")
    assert settle_remote(moved) == f"dvc: this clone uses the remote {tmp_path}/away/remote"


def test_a_bucket_is_used_by_this_clone_too(project):
    """What was written for a relative path had gone before the bucket, without a word."""
    lineage.dvc(project, "remote", "add", "--default", "storage", "../remote")
    settle_remote(project)
    lineage.dvc(project, "remote", "modify", "storage", "url", "s3://bucket/folder")
    assert "the project's remote is s3://bucket/folder" in (unsettled_remote(project) or "")
    expected = "dvc: this clone now uses the project's remote s3://bucket/folder"
    assert settle_remote(project) == expected
    assert remote_of(project) == "s3://bucket/folder"
    assert unsettled_remote(project) is None


def test_a_path_that_its_user_chose_for_this_clone_stays(project, tmp_path):
    lineage.dvc(project, "remote", "add", "--default", "storage", "../remote")
    mine = str(tmp_path / "mine")
    lineage.dvc(project, "remote", "modify", "--local", "storage", "url", mine)
    assert settle_remote(project) is None and unsettled_remote(project) is None
    assert remote_of(project) == mine
