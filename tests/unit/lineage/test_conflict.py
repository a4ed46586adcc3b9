"""Merge conflicts of two clones that opened the same update, resolved to one side."""

from __future__ import annotations

import re
import subprocess

import pytest
from small_lineage import GOOD, run_update
from small_project import edit_params

from renate_stages import errors, lineage
from renate_stages.files import yaml_file
from renate_stages.lineage.conflict import find_conflict, take_side
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.project import Project

ATTRIBUTES = "/dvc.lock -merge\n/parent.dvc -merge\n/metrics/** -merge\n"


@pytest.fixture
def ours(project, tmp_path) -> Project:
    """Return a clone with its own update 3 and a conflicted merge of another clone's."""
    (project.root / ".gitattributes").write_text(ATTRIBUTES)
    lineage.git(project, "add", "-A")
    lineage.git(project, "commit", "-qm", "Attributes")
    theirs = Project(tmp_path / "theirs")
    subprocess.run(["cp", "-a", project.root, theirs.root], check=True)
    for clone, quality, ids in ((theirs, GOOD - 1, ["a"]), (project, GOOD - 2, ["b"])):
        forget = ForgetList().with_more(ids)
        forget.write(clone.forget_list)
        if clone is theirs:  # a change without a conflict
            edit_params(clone, tracking__experiment="theirs")
        (clone.root / ("theirs.py" if clone is theirs else "ours.py")).touch()
        run_update(clone, quality)
        lineage.open_next(clone)
    lineage.git(project, "remote", "add", "theirs", str(theirs.root))
    lineage.git(project, "fetch", "-q", "theirs", "main")
    lineage.git(project, "merge", "-q", "FETCH_HEAD", check=False)
    return project


def file_at(project: Project, revision: str, name: str) -> str:
    return lineage.git(project, "show", f"{revision}:{name}")


def test_status_describes_both_sides_of_a_merge_conflict(ours):
    found = lineage.status(ours)
    assert found["ours"].endswith("update 4 open") and found["theirs"].endswith("update 4 open")
    assert "dvc.lock" in found["conflict"] and "forget.yaml" in found["conflict"]
    assert "resolve --ours" in found["next"]
    yaml_file.read(ours.lock_file)  # the file has no conflict markers


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_generated_files_are_taken_from_the_chosen_side(ours, side, capsys):
    chosen = lineage.git(ours, "rev-parse", "HEAD" if side == "ours" else "MERGE_HEAD")
    seed = GOOD - 2 if side == "ours" else GOOD - 1
    left = take_side(ours, side)
    # Both sides changed `seed`, which belongs to the user, so Git reports a conflict.
    assert left == ["params.yaml"]
    text = ours.params.read_text()
    assert f"seed: {GOOD - 2}\n=======\nseed: {GOOD - 1}\n" in text
    ours.params.write_text(f"seed: {seed}\n" + text[text.index("update:") :])
    lineage.git(ours, "add", "params.yaml")
    lineage.git(ours, "commit", "-q", "--no-edit")
    for name in ("dvc.lock", "parent.dvc", "reports/verdict.json"):
        assert file_at(ours, "HEAD", name) == file_at(ours, chosen, name)
    assert {"ours.py", "theirs.py"} <= {path.name for path in ours.root.iterdir()}
    forgotten = ForgetList.read(ours.forget_list)
    assert forgotten.ids == ForgetList().with_more(["a", "b"]).ids
    params = Params.load(ours.params)
    assert params.tracking.experiment == "theirs", "Git merges the user's own settings"
    assert lineage.git(ours, "rev-parse", "update-3") == lineage.git(
        ours, "rev-parse", f"{chosen}~1"
    )
    assert ("moved the tag update-3 from" in capsys.readouterr().out) == (side == "theirs")
    subprocess.run(["cp", "-a", ours.root.parent / "theirs" / ".dvc", ours.root], check=True)
    lineage.dvc(ours, "checkout", "--quiet", "--force", "parent.dvc")
    assert lineage.verify(ours) == (3, [])


def test_merged_params_that_make_stages_rerun_are_reported(project, capsys):
    (project.root / ".gitattributes").write_text(ATTRIBUTES)
    lineage.git(project, "add", "-A")
    lineage.git(project, "commit", "-qm", "Attributes")
    lineage.git(project, "branch", "ours")
    run_update(project, GOOD - 1)
    lineage.git(project, "checkout", "-q", "ours")
    lineage.dvc(project, "checkout", "--quiet", "--force")
    edit_params(project, tracking__experiment="ours")
    lineage.git(project, "commit", "-qam", "Another experiment")
    lineage.open_next(project)
    run_update(project, GOOD)
    lineage.git(project, "merge", "-q", "main", check=False)
    capsys.readouterr()
    assert take_side(project, "theirs") == []
    output = capsys.readouterr().out
    assert "merged, so different from " in output
    assert "open: params.yaml. `dvc repro` will rerun the stages" in output
    (advice,) = re.findall(r"`git (checkout \w{8} -- params\.yaml)`", output)
    lineage.git(project, *advice.split())
    assert Params.load(project.params).tracking.experiment != "ours"


def test_update_block_is_taken_from_one_side_when_the_numbers_differ(project):
    edit_params(project, update__task_id="base")
    lineage.git(project, "commit", "-qam", "Base")
    lineage.git(project, "branch", "theirs")
    edit_params(project, update__number=7, update__kind="forget")
    lineage.git(project, "commit", "-qam", "Ours")
    lineage.git(project, "checkout", "-q", "theirs")
    edit_params(project, update__number=8, seed=1)
    lineage.git(project, "commit", "-qam", "Theirs")
    lineage.git(project, "checkout", "-q", "main")
    lineage.git(project, "merge", "-q", "theirs", check=False)
    assert take_side(project, "ours") == []
    params = Params.load(project.params)
    assert (params.update.number, params.update.kind, params.seed) == (7, "forget", 1)


def test_file_missing_on_the_chosen_side_is_removed(project):
    lineage.git(project, "branch", "theirs")
    (project.root / "plots").mkdir()
    (project.root / "plots" / "ours.csv").write_text("1")
    (project.root / "plots" / "ignored.png").write_text("1")
    (project.root / ".gitignore").write_text(".renate\n__pycache__\n*.png\n")
    edit_params(project, update__number=7)
    lineage.git(project, "add", "-A")
    lineage.git(project, "commit", "-qm", "Ours")
    lineage.git(project, "checkout", "-q", "theirs")
    edit_params(project, update__number=8)
    lineage.git(project, "commit", "-qam", "Theirs")
    lineage.git(project, "checkout", "-q", "main")
    lineage.git(project, "merge", "-q", "theirs", check=False)
    assert take_side(project, "theirs") == []
    assert [path.name for path in (project.root / "plots").iterdir()] == ["ignored.png"]
    assert lineage.git(project, "ls-files", "plots") == ""


def test_resolving_without_a_merge_is_refused(project):
    assert find_conflict(project) is None
    with pytest.raises(errors.NoConflictError, match="no merge to resolve"):
        take_side(project, "ours")


def test_resolving_a_conflict_of_a_rebase_is_refused(project):
    lineage.git(project, "branch", "theirs")
    edit_params(project, seed=1)
    lineage.git(project, "commit", "-qam", "Ours")
    lineage.git(project, "checkout", "-q", "theirs")
    edit_params(project, seed=2)
    lineage.git(project, "commit", "-qam", "Theirs")
    lineage.git(project, "rebase", "-q", "main", check=False)
    with pytest.raises(
        errors.MergeError, match=r"(?s)because of a rebase, not of a merge.*git rebase --abort"
    ):
        take_side(project, "ours")
    with pytest.raises(errors.MergeError, match="rebase"):
        lineage.status(project)


def test_params_file_with_conflict_markers_is_refused(project):
    text = project.params.read_text()
    project.params.write_text(f"<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> theirs\n{text}")
    with pytest.raises(errors.ConflictedFileError, match="has merge conflicts"):
        Params.load(project.params)
