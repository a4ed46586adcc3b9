"""Verification of the hash chain over updates, in a small repository with handwritten hashes."""

from __future__ import annotations

import pytest
from small_project import edit_params

from renate_stages import lineage
from renate_stages.files import yaml_file
from renate_stages.project import Project

A, B, C, D, E, F = (digit * 32 for digit in "abcdef")


def lock(parent: str, made: str) -> dict:
    return {
        "stages": {
            "restore-state": {"deps": [{"path": "parent-state", "md5": parent}]},
            "train": {"outs": [{"path": "state", "md5": made, "size": 1, "nfiles": 1}]},
            "export": {"deps": [{"path": "state", "md5": made}]},
        }
    }


@pytest.fixture
def chain(project, monkeypatch) -> Project:
    """Two tagged updates, and a third that is open and has run."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    lineage.git(project, "init", "-q")
    for number, start, made in ((1, A, B), (2, B, C), (3, C, D)):
        edit_params(project, update__number=number, update__parent=number - 1)
        pointer = {"outs": [{"path": "parent-state", "md5": start}]}
        project.parent_pointer.write_text(yaml_file.dump(pointer))
        project.lock_file.write_text(yaml_file.dump(lock(start, made)))
        lineage.git(project, "add", "dvc.lock", "parent.dvc", "params.yaml")
        lineage.git(project, "commit", "-q", "-m", f"Update {number}")
        if number < 3:
            lineage.git(project, "tag", f"update-{number}")
    return project


def test_intact_chain_passes_verification(chain):
    assert lineage.verify(chain) == (2, [])


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("parent.dvc", C, F),
        ("dvc.lock", C, F),
        ("dvc.lock", f"{D}\n      size", f"{F}\n      size"),
    ],
)
def test_altered_hash_in_the_working_tree_is_reported(chain, name, old, new):
    path = chain.root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    checked, problems = lineage.verify(chain)
    assert checked == 2 and problems and "the working tree" in problems[0]


def test_altered_lock_file_of_a_tagged_update_is_reported(chain):
    lineage.git(chain, "checkout", "-q", "--detach", "update-2")
    chain.lock_file.write_text(yaml_file.dump(lock(B, E)))
    lineage.git(chain, "commit", "-q", "-a", "-m", "forged")
    lineage.git(chain, "tag", "-f", "update-2")
    lineage.git(chain, "checkout", "-q", "-")
    assert any(f"update-2 wrote {E}" in problem for problem in lineage.verify(chain)[1])


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("parent.dvc", B, F, f"update-2: parent.dvc has the hash {F}, but update-1 wrote {B}"),
        (
            "dvc.lock",
            B,
            F,
            f"update-2: restore-state read parent-state as {F}, but parent",
        ),
        (
            "dvc.lock",
            f"{C}\n      size",
            f"{F}\n      size",
            f"update-2: export read state as {C}",
        ),
        ("params.yaml", "number: 2", "number: 4", "update-2: params.yaml says it is update 4"),
        (
            "params.yaml",
            "parent: 1",
            "parent: 0",
            f"update-2: parent.dvc has the hash {B}, but the first state is {A}",
        ),
    ],
)
def test_altered_entry_of_a_tagged_update_is_reported_by_name(chain, name, old, new, expected):
    lineage.git(chain, "checkout", "-q", "--detach", "update-2")
    path = chain.root / name
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    lineage.git(chain, "commit", "-q", "-a", "-m", "forged")
    lineage.git(chain, "tag", "-f", "update-2")
    lineage.git(chain, "checkout", "-q", "-")
    _, problems = lineage.verify(chain)
    assert any(problem.startswith(expected) for problem in problems), problems


def test_parent_without_a_tag_is_reported(chain):
    lineage.git(chain, "tag", "-d", "update-1")
    assert lineage.verify(chain) == (
        1,
        ["update-2: its parent update-1 has no tag in this clone; run `git fetch --tags`"],
    )


def test_open_update_that_has_not_run_passes_verification(chain):
    """Until the update runs, dvc.lock still describes the parent."""
    chain.lock_file.write_text(yaml_file.dump(lock(B, C)))
    assert lineage.verify(chain) == (2, [])


def test_status_says_how_to_get_a_missing_parent_state(chain):
    chain.parent.rename(chain.root / "elsewhere")
    found = lineage.status(chain)
    assert (found["update"], found["parent"]) == ("3", f"update 2 ({C})")
    assert "dvc pull parent.dvc" in found["state"]
