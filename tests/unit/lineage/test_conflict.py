"""Two clones that opened the same update meet in a merge, and one side is taken."""

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
    """A clone that has run update 3 in its way, and whose merge of another's has stopped."""
    (project.root / ".gitattributes").write_text(ATTRIBUTES)
    lineage.git(project, "add", "-A")
    lineage.git(project, "commit", "-qm", "Attributes")
    theirs = Project(tmp_path / "theirs")
    subprocess.run(["cp", "-a", project.root, theirs.root], check=True)
    for clone, quality, ids in ((theirs, GOOD - 1, ["a"]), (project, GOOD - 2, ["b"])):
        forget = ForgetList().with_more(ids)
        forget.write(clone.forget_list)
        if clone is theirs:  # nothing that the other has changed
            edit_params(clone, tracking__experiment="theirs")
        (clone.root / ("theirs.py" if clone is theirs else "ours.py")).touch()
        run_update(clone, quality)
        lineage.open_next(clone)
    lineage.git(project, "remote", "add", "theirs", str(theirs.root))
    lineage.git(project, "fetch", "-q", "theirs", "main")
    lineage.git(project, "merge", "-q", "FETCH_HEAD", check=False)
    return project


def at(project: Project, revision: str, name: str) -> str:
    return lineage.git(project, "show", f"{revision}:{name}")


def test_status_says_what_each_side_has(ours):
    found = lineage.status(ours)
    assert found["ours"].endswith("update 4 open") and found["theirs"].endswith("update 4 open")
    assert "dvc.lock" in found["conflict"] and "forget.yaml" in found["conflict"]
    assert "resolve --ours" in found["next"]
    yaml_file.read(ours.lock_file)  # it has no marks of a conflict


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_what_commands_and_stages_wrote_is_of_one_side(ours, side, capsys):
    chosen = lineage.git(ours, "rev-parse", "HEAD" if side == "ours" else "MERGE_HEAD")
    seed = GOOD - 2 if side == "ours" else GOOD - 1
    left = take_side(ours, side)
    # Both changed the line of `seed`, which is a user's: Git asks about it.
    assert left == ["params.yaml"]
    text = ours.params.read_text()
    assert f"seed: {GOOD - 2}\n=======\nseed: {GOOD - 1}\n" in text
    ours.params.write_text(f"seed: {seed}\n" + text[text.index("update:") :])
    lineage.git(ours, "add", "params.yaml")
    lineage.git(ours, "commit", "-q", "--no-edit")
    for name in ("dvc.lock", "parent.dvc", "metrics/verdict.json"):
        assert at(ours, "HEAD", name) == at(ours, chosen, name)
    assert {"ours.py", "theirs.py"} <= {path.name for path in ours.root.iterdir()}
    forgotten = ForgetList.read(ours.forget_list)
    assert forgotten.ids == ForgetList().with_more(["a", "b"]).ids
    params = Params.load(ours.params)
    assert params.tracking.experiment == "theirs", "what a user writes, Git merges"
    assert lineage.git(ours, "rev-parse", "update-3") == lineage.git(
        ours, "rev-parse", f"{chosen}~1"
    )
    assert ("moved the tag update-3 from" in capsys.readouterr().out) == (side == "theirs")
    subprocess.run(["cp", "-a", ours.root.parent / "theirs" / ".dvc", ours.root], check=True)
    lineage.dvc(ours, "checkout", "--quiet", "--force", "parent.dvc")
    assert lineage.verify(ours) == (3, [])


def test_a_merged_file_that_stages_read_is_named(project, capsys):
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
    said = capsys.readouterr().out
    assert "merged, so different from " in said
    assert "open: params.yaml. `dvc repro` will rerun the stages" in said
    (advice,) = re.findall(r"`git (checkout \w{8} -- params\.yaml)`", said)
    lineage.git(project, *advice.split())
    assert Params.load(project.params).tracking.experiment != "ours"


def test_the_block_of_the_update_is_of_one_side_where_the_numbers_differ(project):
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


def test_a_file_that_one_side_does_not_have_goes_with_that_side(project):
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


def test_without_a_merge_there_is_nothing_to_take(project):
    assert find_conflict(project) is None
    with pytest.raises(errors.NoConflictError, match="no merge to resolve"):
        take_side(project, "ours")


def test_in_a_rebase_the_sides_are_not_two_clones(project):
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


def test_a_file_with_marks_of_a_conflict_is_named(project):
    text = project.params.read_text()
    project.params.write_text(f"<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> theirs\n{text}")
    with pytest.raises(errors.ConflictedFileError, match="has merge conflicts"):
        Params.load(project.params)
