"""Forgetting examples in a real project, down to the last byte."""

from __future__ import annotations

import codecs
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from sandbox import REPOSITORY, generate

from renate_stages.actions.forget import still_held
from renate_stages.memory.identity import printed
from renate_stages.project import Project
from renate_stages.state import State


def all_files(*folders: Path) -> dict[Path, bytes]:
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths}


def files_containing(images: list[bytes], *folders: Path) -> list[Path]:
    """Return the files that contain the bytes of any of the images."""
    contents = all_files(*folders)
    return [path for path, content in contents.items() if any(each in content for each in images)]


def test_forget_removes_rows_and_erase_removes_them_from_older_versions(project):
    """Another project pushes to the same remote, where `dvc gc` would delete its objects."""
    project.stop_tracking()
    project.commit("No tracking")
    root, remote = project.root, project.root.parent / "digits-dvc-remote"
    memory = State.open(root / "state").memory()
    rows = np.array([0, 1, 2, 3, 4, 5, 6, len(memory) - 2, len(memory) - 1])
    assert memory.metadata("update")[rows].tolist() == [1] * 7 + [3] * 2
    chosen = printed(memory.metadata("id")[rows])
    images = [image.tobytes() for image in memory.gather(rows)[0]]
    text = "\r\n".join([*chosen, "nobody"])
    (root.parent / "ids.txt").write_bytes(codecs.BOM_UTF8 + text.encode())

    refused = project.run("renate-stages", "forget", code=2)
    assert "there are no examples to forget" in refused
    refused = project.run("renate-stages", "forget", "--where", "sorce == 'eu'", code=2)
    assert "sorce" in refused and "known:" in refused
    refused = project.run("renate-stages", "forget", "--where", "id == 3", code=2)
    assert "--ids" in refused and "Traceback" not in refused
    output = project.run("renate-stages", "forget", "--ids", "../ids.txt")
    assert (
        "10 ids given, 9 found among the stored examples" in output
        and "1 match no stored example: 'nobody'" in output
    )
    assert "9 rows of memory will be removed" in output and "arrive again" not in output
    assert "update 4 is open and only forgets" in output
    assert "dvc repro" in project.run("renate-stages", "status")
    refused = project.run("renate-stages", "forget", "--erase", "--yes", code=2)
    assert "rows to forget are still stored" in refused

    project.run("dvc", "repro", "-q")
    assert project.read_json("state/state.json")["kind"] == "forget"
    assert len(State.open(root / "state").memory()) == 291
    for folder in ("state", "work"):
        written = b"".join(path.read_bytes() for path in (root / folder).rglob("*.npy"))
        assert not any(image in written for image in images)
    assert project.run("dvc", "repro").rstrip().endswith("Data and pipelines are up to date.")
    project.commit("Update 4")
    project.run("renate-stages", "next")
    assert "kind" not in project.read("params.yaml")
    assert "every file" in project.run("renate-stages", "verify", "--deep")
    assert still_held(Project(root)) == {}
    project.run("dvc", "push", "-q")

    other = generate(root.parent / "other", dvc_remote=str(remote))
    other.edit("params.yaml", ("seed: 0", "seed: 7"))
    other.run("renate-stages", "init")
    other.run("dvc", "repro", "-q", "prepare", "restore-state")
    other.commit("Half an update of another project")
    shared = all_files(remote)
    other.run("dvc", "push", "-q")
    pushed = all_files(remote)
    assert pushed.keys() > shared.keys()

    cache = root / ".dvc" / "cache"
    assert files_containing(images, cache) and files_containing(images, remote)
    listed = project.run("renate-stages", "forget", "--erase", code=1)  # nobody confirms
    assert "update-1: data/incoming, state, work/prepared" in listed
    foreign = len(pushed) - len(shared)
    assert f"{foreign} objects that no commit of this project refers to" in listed
    assert files_containing(images, cache), "nothing was removed"
    output = project.run("renate-stages", "forget", "--erase", "--yes")
    assert (
        "removed" in output and "data/incoming contains, or may contain, rows to forget" in output
    )
    assert all_files(remote) == pushed
    incoming = all_files(root / "data" / "incoming").values()  # raw user data is not erased
    held = files_containing(images, root)
    assert not [path for path in held if path.read_bytes() not in incoming]

    there = other.clone()  # the other project still has all its objects
    there.run("dvc", "pull", "-q", "--allow-missing")
    for folder in ("data/incoming", "work/prepared", "parent-state"):
        assert there.hashes(folder) == other.hashes(folder) != {}
    paths = (root / ".renate" / "erase-storage.txt").read_text().splitlines()
    output = project.run("renate-stages", "forget", "--erase", "--yes", "--shared-storage")
    assert "removed" in output
    left = all_files(remote)
    assert sorted(map(str, pushed.keys() - left.keys())) == sorted(paths) != []
    theirs = pushed.keys() - shared.keys()  # the same digits in the other project's stores
    held = [path for path in files_containing(images, root, remote) if path not in theirs]
    assert not [path for path in held if path.read_bytes() not in incoming]

    assert "every file" in project.run("renate-stages", "verify", "--deep")
    project.run("dvc", "status")
    assert "Everything is up to date." in project.run("dvc", "push")
    assert "Everything is up to date." in project.run("dvc", "pull")
    clone = project.clone()
    clone.run("dvc", "pull", "-q", "--allow-missing")
    assert clone.hashes("parent-state") == project.hashes("parent-state")
    assert project.run("renate-stages", "memory").splitlines()[-1].split()[:2] == ["all", "291"]
    project.put_digits(1)  # the same objects again: `dvc push` must upload them again
    project.run("dvc", "push", "-q")
    assert all_files(remote).keys() > left.keys()


@pytest.mark.slow
def test_forget_commands_of_the_guide_run_as_written(project):
    """Skip the condition on `source`, a metadata field that the digits do not have."""
    guide = (REPOSITORY / "docs" / "memory-and-state.md").read_text(encoding="utf-8")
    block = re.search(r"## Forget examples\n.*?```text\n(.*?)```", guide, re.DOTALL)
    assert block is not None
    held = State.open(project.root / "state").memory()
    (project.root.parent / "ids.txt").write_text(printed(held.metadata("id"))[0])
    for line in block[1].splitlines():
        for command in line.split("#")[0].split("&&"):
            words = ["../ids.txt" if word == "ids.txt" else word for word in shlex.split(command)]
            if words and "--where" not in words:
                project.run(*words)
    assert len(State.open(project.root / "state").memory()) == len(held) - 1
