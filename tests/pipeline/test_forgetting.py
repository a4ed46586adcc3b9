"""Examples are forgotten in a real project, to the last byte."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from sandbox import REPOSITORY

from renate_stages.forget import still_held
from renate_stages.memory.identity import to_text
from renate_stages.project import Project
from renate_stages.state import State


def test_rows_are_forgotten_and_older_versions_erased(project):
    project.stop_tracking()
    project.commit("No tracking")
    root = project.root
    held = State.open(root / "state")
    chosen = to_text(held.memory().metadata("id"))[:7]
    rows = np.flatnonzero(np.isin(to_text(held.memory().metadata("id")), chosen))
    images = [image.tobytes() for image in held.memory().gather(rows)[0]]
    (root.parent / "ids.txt").write_text("\n".join(chosen))

    refused = project.run("renate-stages", "forget", code=2)
    assert "nothing to forget is named" in refused
    refused = project.run("renate-stages", "forget", "--where", "sorce == 'eu'", code=2)
    assert "sorce" in refused and "known:" in refused
    said = project.run("renate-stages", "forget", "--ids", "../ids.txt")
    assert "7 row(s) of memory will leave" in said and "come in again" not in said
    assert "update 4 is open, and forgets" in said
    assert "dvc repro" in project.run("renate-stages", "status")
    refused = project.run("renate-stages", "forget", "--erase", "--yes", code=2)
    assert "rows to forget are still here" in refused

    project.run("dvc", "repro", "-q")
    assert project.read_json("state/state.json")["kind"] == "forget"
    assert len(State.open(root / "state").memory()) == 293
    for folder in ("state", "work"):
        written = b"".join(path.read_bytes() for path in (root / folder).rglob("*.npy"))
        assert not any(image in written for image in images)
    assert project.run("dvc", "repro").rstrip().endswith("Data and pipelines are up to date.")
    project.commit("Update 4")
    project.run("renate-stages", "next")
    assert "kind" not in project.read("params.yaml")
    assert "every file" in project.run("renate-stages", "verify", "--deep")
    assert still_held(Project(root)) == {}

    cache = [path for path in (root / ".dvc" / "cache").rglob("*") if path.is_file()]
    assert any(images[0] in path.read_bytes() for path in cache)
    listed = project.run("renate-stages", "forget", "--erase", code=1)  # nobody says yes
    assert "of update-3 DVC's cache holds" in listed and "state" in listed
    assert any(images[0] in path.read_bytes() for path in cache), "nothing was removed"
    said = project.run("renate-stages", "forget", "--erase", "--yes")
    assert "dvc gc --workspace --force --cloud" in said and "removed" in said
    places = (
        root / ".dvc",
        root / "state",
        root / "parent-state",
        root.parent / "digits-dvc-remote",
    )
    left = [path for place in places for path in place.rglob("*") if path.is_file()]
    incoming = [path.read_bytes() for path in (root / "data" / "incoming").iterdir()]
    for path in left:
        content = path.read_bytes()
        if content not in incoming:  # of update 3: what a user put there is theirs to replace
            assert not any(image in content for image in images), path
    project.run("renate-stages", "verify")
    project.run("dvc", "status")
    assert project.run("renate-stages", "memory").splitlines()[-1].split()[:2] == ["all", "293"]


@pytest.mark.slow
def test_the_guides_commands_run_as_written(project):
    """But for the condition on `source`, which the digits do not have."""
    guide = (REPOSITORY / "docs" / "memory-and-state.md").read_text(encoding="utf-8")
    block = re.search(r"## Forget examples\n.*?```text\n(.*?)```", guide, re.DOTALL)
    assert block is not None
    held = State.open(project.root / "state").memory()
    (project.root.parent / "ids.txt").write_text(to_text(held.metadata("id"))[0])
    for line in block[1].splitlines():
        for command in line.split("#")[0].split("&&"):
            words = ["../ids.txt" if word == "ids.txt" else word for word in shlex.split(command)]
            if words and "--where" not in words:
                project.run(*words)
    assert len(State.open(project.root / "state").memory()) == len(held) - 1
