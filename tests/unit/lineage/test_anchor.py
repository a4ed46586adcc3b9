"""Integrity checks: folders that differ from the hashes in Git are refused and repaired."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from small_lineage import GOOD, run_update

from renate_stages import errors, files, lineage
from renate_stages.actions import promote
from renate_stages.lineage.anchor import check, check_inputs, folders_to_verify
from renate_stages.lineage.content import Md5s, cached, files_under, folder_hash, listing
from renate_stages.lineage.records import read_pointer
from renate_stages.state import state

NAMES = ["b/1", "b-1", "b.1", "a", "B", "é/ü", "b/2/x y", "10", "9"]


@pytest.fixture
def remote(project, tmp_path) -> Path:
    """Return the project's remote with all objects; DVC does not verify what it downloads."""
    lineage.dvc(project, "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    lineage.git(project, "commit", "-qam", "A remote")
    lineage.dvc(project, "push", "--quiet")
    return tmp_path / "remote" / "files" / "md5"


def overwrite(path: Path, content: bytes) -> None:
    """Write to a file in place, as root can do through one of DVC's links."""
    path.chmod(0o644)
    path.write_bytes(content)


def object_path(folder: Path, md5: str) -> Path:
    return folder / md5[:2] / md5[2:]


def test_folder_hash_equals_the_hash_computed_by_dvc(project):
    folder = project.root / "some"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "b" / "__pycache__").mkdir()
    (folder / "b" / "__pycache__" / "x.pyc").write_text("not DVC's")
    (project.root / ".dvcignore").write_text("__pycache__/\n")
    lineage.dvc(project, "add", "--quiet", "some")
    named = read_pointer((project.root / "some.dvc").read_text(), "some.dvc")["md5"]
    found = Md5s(None).of_files(files_under(folder))
    assert sorted(found) == sorted(NAMES)
    assert folder_hash(found) == named
    assert listing(project, named) == found


def test_unchanged_folders_pass_the_check_of_every_stage(project):
    for stage in ("train", "export"):
        check_inputs(project, stage)
    for folder in folders_to_verify(project):
        assert check(project, folder, deep=True)


def test_file_damaged_in_workspace_and_cache_is_reported_and_repaired(project, remote, capsys):
    overwrite(project.parent / "state.json", b"2 8")
    before = project.parent_pointer.read_text()
    with pytest.raises(errors.ChangedFolderError, match=r"state\.json: its content differs"):
        check_inputs(project, "train")
    assert project.parent_pointer.read_text() == before
    os.link(project.parent / "state.json", project.root / "same")
    md5 = read_pointer(before, "parent.dvc")["md5"]
    (name,) = listing(project, md5).values()
    cached(project, name).unlink()
    os.link(project.parent / "state.json", cached(project, name))  # as `dvc checkout` links them

    lineage.repair(project)
    output = capsys.readouterr().out
    restored = "parent-state/: restored to the hash in parent.dvc; 1 damaged object removed"
    assert restored in output
    assert (project.parent / "state.json").read_text() == f"2 {GOOD}"
    check_inputs(project, "train")
    assert (project.root / "same").read_bytes() == b"2 8", "nothing was written through a link"


def test_forged_parent_with_a_matching_manifest_is_refused(project, tmp_path):
    """An attacker who changes a file of a state can change `state.json` as well."""
    shutil.rmtree(project.parent)
    state.write_empty(project.parent)
    lineage.dvc(project, "commit", "--quiet", "--force", "parent.dvc")
    lineage.git(project, "commit", "-qam", "A real state")
    check_inputs(project, "train")
    files.write_text(project.parent / "evaluations.csv", "forged")
    manifest = json.loads((project.parent / "state.json").read_text())
    manifest["files"] = files.inventory(project.parent, without=("state.json",))
    files.write_json(project.parent / "state.json", manifest)
    state.check(project.parent)
    with pytest.raises(errors.ChangedFolderError, match=r"evaluations\.csv: its content differs"):
        check_inputs(project, "train")


def test_stale_parent_is_refused_and_its_rewritten_pointer_is_restored(project, capsys):
    committed = project.parent_pointer.read_text()
    lineage.git(project, "checkout", "-q", "update-2")
    lineage.dvc(project, "checkout", "--quiet", "parent.dvc")
    lineage.git(project, "checkout", "-q", "main")  # without `dvc checkout`
    lineage.dvc(project, "commit", "--force", "parent.dvc")  # `dvc repro` does this first
    assert project.parent_pointer.read_text() != committed
    with pytest.raises(
        errors.ChangedFolderError, match=r"parent-state/ does not match the hash in parent\.dvc"
    ):
        check_inputs(project, "train")
    assert project.parent_pointer.read_text() == committed
    assert "parent.dvc had changed; its committed version was restored" in capsys.readouterr().err
    lineage.repair(project)
    check_inputs(project, "train")


def test_champion_code_changed_in_the_remote_is_refused(project, remote, capsys):
    (project.root / "make.py").write_text(
        (project.root / "make.py").read_text()
        + 'if sys.argv[1] == "export":\n    Path("export/renate_config.py").write_text("safe = 1")\n'
    )
    run_update(project, GOOD - 1)
    promote.promote(project)
    lineage.dvc(project, "push", "--quiet")
    pointer = read_pointer(project.champion_pointer.read_text(), "champion.dvc")
    code = listing(project, pointer["md5"])["renate_config.py"]
    overwrite(object_path(remote, code), b"import os; os.mkdir('/tmp/attack')")
    shutil.rmtree(project.champion)
    shutil.rmtree(project.root / ".dvc" / "cache")
    lineage.dvc(project, "pull", "--quiet", "champion.dvc")
    assert b"attack" in (project.champion / "renate_config.py").read_bytes(), "DVC accepts the file"

    with pytest.raises(errors.ChangedFolderError, match=r"renate_config\.py: its content differs"):
        check_inputs(project, "export")
    with pytest.raises(errors.StillDamagedError, match=r"champion/ cannot be restored"):
        lineage.repair(project)
    assert not cached(project, code).exists(), "the damaged object is removed from the cache"


@pytest.mark.parametrize("folder", ["state", "export"])
def test_outputs_that_differ_from_the_lock_file_are_refused(project, folder):
    place = project.root / folder
    overwrite(next(path for path in sorted(place.iterdir())), b"something else")
    if folder == "state":
        with pytest.raises(
            errors.ChangedFolderError, match=r"state/ does not match the hash in dvc\.lock"
        ):
            check_inputs(project, "export")
    with pytest.raises(
        errors.ChangedFolderError, match=rf"{folder}/ does not match the hash in dvc\.lock"
    ):
        check(project, place, deep=True)


@pytest.mark.parametrize("has_list", [True, False])
def test_extra_and_missing_files_are_refused(project, has_list):
    md5 = read_pointer(project.parent_pointer.read_text(), "parent.dvc")["md5"]
    if not has_list:
        cached(project, md5).unlink()
    (project.parent / "extra").touch()
    with pytest.raises(
        errors.ChangedFolderError, match="extra" if has_list else "hash of the folder"
    ):
        check(project, project.parent)
    (project.parent / "extra").unlink()
    (project.parent / "state.json").rename(project.root / "away")
    with pytest.raises(errors.ChangedFolderError, match="missing" if has_list else "hash of the f"):
        check(project, project.parent)
    (project.root / "away").rename(project.parent / "state.json")
    check(project, project.parent)


def test_stage_check_requires_only_the_parts_of_the_parent_that_it_reads(project):
    """The same happens after `dvc repro --pull --allow-missing` in a fresh clone."""
    shutil.rmtree(project.parent)
    for name in ("memory/a", "memory/b", "holdouts/1"):
        (project.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (project.parent / name).write_text(name)
    lineage.dvc(project, "commit", "--quiet", "--force", "parent.dvc")
    lineage.git(project, "commit", "-qam", "Parts")
    text = project.pipeline.read_text()
    project.pipeline.write_text(text.replace("- parent-state\n", "- parent-state/memory\n"))
    shutil.rmtree(project.parent / "holdouts")
    check_inputs(project, "train")
    overwrite(project.parent / "memory" / "b", b"x")
    with pytest.raises(errors.ChangedFolderError, match="memory/b: its content differs"):
        check_inputs(project, "train")


def test_deep_check_reads_files_whose_size_and_time_are_unchanged(project):
    check_inputs(project, "train")
    path = project.parent / "state.json"
    before = path.stat()
    overwrite(path, b"2 8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    check_inputs(project, "train")  # same file, size and time, so it is not read again
    with pytest.raises(errors.ChangedFolderError):
        check(project, project.parent, deep=True)


def test_uncommitted_pointer_is_refused(project):
    lineage.git(project, "rm", "--quiet", "--cached", "parent.dvc")
    lineage.git(project, "commit", "-qm", "Without the pointer")
    with pytest.raises(errors.UncommittedPointerError, match=r"parent\.dvc is not committed"):
        check_inputs(project, "train")


def test_check_is_skipped_in_a_folder_without_dvc(project):
    shutil.rmtree(project.root / ".dvc")
    overwrite(project.parent / "state.json", b"x")
    check_inputs(project, "train")  # as in a job's working folder, whose files were verified singly


def test_state_of_the_closed_update_is_not_verified_after_next(project):
    lineage.open_next(project)
    assert folders_to_verify(project) == [project.parent, project.champion]


def test_hashes_are_recomputed_when_the_hash_cache_is_unreadable(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "known.json").write_text("no JSON")
    found = Md5s(tmp_path / "known.json").of_files({"file": tmp_path / "file"})
    assert found == {"file": "9dd4e461268c8034f5c8564e155c67a6"}  # MD5 (RFC 1321) of "x"
