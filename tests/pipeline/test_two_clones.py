"""Two clones open the same update; the commands of docs/reliability.md resolve this."""

from __future__ import annotations

import re

from sandbox import REPOSITORY, Sandbox

from renate_stages.project import Project
from renate_stages.state import State

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")


def run_block(sandbox: Sandbox, number: int) -> str:
    """Run one of the page's code blocks in a shell."""
    block = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)[number]
    return sandbox.run("bash", "-euc", block)


def run_update(sandbox: Sandbox, digits: int, message: str) -> None:
    sandbox.run("renate-stages", "next")
    sandbox.put_digits(digits)
    sandbox.run("dvc", "repro", "-q")
    sandbox.commit(message)
    sandbox.run("dvc", "push", "-q")


def test_documented_commands_resolve_two_clones_with_the_same_open_update(project):
    project.stop_tracking()
    project.edit("params.yaml", ("max_epochs: 20", "max_epochs: 2"))
    project.run("dvc", "repro", "-q")
    project.commit("A short training")
    project.run("dvc", "push", "-q")
    project.run("git", "clone", "-q", "--bare", ".", "../origin.git")
    ann, ben = (Sandbox(project.root.parent / name) for name in ("ann", "ben"))
    for clone in (ann, ben):
        project.run("git", "clone", "-q", "../origin.git", f"../{clone.root.name}")
        assert "parent: fetched the state of update 2" in clone.run("renate-stages", "init")
        clone.run("dvc", "pull", "-q")
    run_update(ann, 1, "Update 4 of Ann")
    ann.run("git", "push", "-q", "--tags", "origin", "main")
    run_update(ben, 2, "Update 4 of Ben")
    (ben.root / "notes.md").write_text("Ben's note")
    ben.commit("A note")

    ben.run("git", "pull", "-q", "--no-rebase", code=1)
    output = ben.run("renate-stages", "status")
    assert "Ann" not in output and output.count("update 4 open") == 2 and "dvc.lock" in output
    assert "data/incoming.dvc" in ben.run("renate-stages", "resolve", "--theirs")
    ben.run("git", "merge", "--abort")

    ben.run("git", "pull", "-q", "--no-rebase", code=1)
    output = run_block(ben, 0)
    assert "every file matches its hash in Git" in output and "broken" not in output
    for name in ("dvc.lock", "parent.dvc", "metrics/update.json", "data/incoming.dvc"):
        assert ben.read(name) == ann.read(name)
    assert ben.read("notes.md") == "Ben's note"
    assert ben.hashes("state") == ann.hashes("state")

    run_block(ben, 1)
    assert "every file matches its hash in Git" in ben.run("renate-stages", "verify", "--deep")
    root = Project(ben.root)
    assert State.open(root.state).provenance.update == 5
    assert State.open(root.parent).provenance.update == 4
    assert sorted(State.open(root.state).split("holdouts")) == [1, 2, 3, 4, 5]
