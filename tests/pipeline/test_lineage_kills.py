"""Commands that change the lineage are killed at every change that they make, and at random moments.

After each kill, what `renate-stages status` advises is done, then the command is given again if it was
undone: all hashes are those of the undisturbed command.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killed_commands as killed
import pytest
from killed_commands import Commands
from sandbox import Sandbox, generate

LINEAGE = {
    "next": ("next",),
    "fork": ("next", "--from", "update-1"),
    "promote": ("promote", "update-1"),
    "demote": ("demote",),
    "forget": ("forget", "--where", "label == 3"),
    "init": ("init",),
    "clone": ("init",),
    "repair": ("verify", "--repair"),
    "merge": ("resolve", "--theirs"),
}
REPEATED = ("init", "clone", "repair", "merge")
"""These commands are never undone: run again, they complete the missing steps."""


@pytest.fixture(scope="module")
def commands():
    started = Commands.start()
    yield started
    started.warm.close()


@dataclass(frozen=True)
class Undisturbed:
    """A project before a command and after it, and how the command went.

    Args:
        source: The project before.
        before, after: What stands in it.
        changes: How many the command makes.
        seconds: That it takes.
    """

    source: Sandbox
    before: dict[str, Any]
    after: dict[str, Any]
    changes: int
    seconds: float


@pytest.fixture(scope="module")
def finished(three_updates, tmp_path_factory) -> Sandbox:
    """A project whose third update is finished and committed, with a champion and one before it."""
    folder = tmp_path_factory.mktemp("kills") / "finished"
    project = killed.copied(three_updates, folder)
    project.stop_tracking()
    project.commit("No tracking")
    project.run("renate-stages", "init")  # the remote of the copy
    for number in (2, 3):
        project.run(
            "renate-stages", "promote", "--force", *([f"update-{number}"] if number < 3 else [])
        )
    return project


@pytest.fixture(scope="module")
def undisturbed(finished, commands, tmp_path_factory):
    """Runs a command without disturbance, once."""
    known: dict[str, Undisturbed] = {}

    def run(name: str) -> Undisturbed:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            source = _source(name, finished, folder)
            before = killed.standing(source)
            copy = killed.copied(source, folder / "after")
            started = time.monotonic()
            code, said = commands.run(copy, *LINEAGE[name], at=folder / "changes")
            seconds = time.monotonic() - started
            assert code == 0, said
            after = killed.standing(copy)
            assert after != before and not after["intent"] and not after["left"]
            changes = len((folder / "changes").read_bytes())
            known[name] = Undisturbed(source, before, after, changes, seconds)
        return known[name]

    return run


def _source(name: str, finished: Sandbox, folder: Path) -> Sandbox:
    """Return the project in which a command is given."""
    if name == "init":
        project = generate(folder / "new")
        project.stop_tracking()
        return project
    if name == "clone":
        (folder / "clone").mkdir()
        finished.run("git", "clone", "-q", ".", str(folder / "clone" / finished.root.name))
        finished.run("dvc", "push", "-q")
        storage = finished.root.parent / f"{finished.root.name}-dvc-remote"
        (folder / "clone" / storage.name).symlink_to(storage)
        return Sandbox(folder / "clone" / finished.root.name)
    if name in ("repair", "merge"):
        project = killed.copied(finished, folder / name)
        damage(project) if name == "repair" else stop_in_a_merge(project)
        return project
    return finished


def damage(project: Sandbox) -> None:
    """Change a file of the parent in place, which DVC's cache shares by a hard link."""
    project.run("dvc", "push", "-q")
    path = project.root / "parent-state" / "evaluations.csv"
    path.chmod(0o644)
    path.write_text("damaged")


def stop_in_a_merge(project: Sandbox) -> None:
    """Merge a branch that has another version of what stages write."""
    project.run("git", "checkout", "-q", "-b", "theirs", "update-2")
    project.edit("params.yaml", ("seed: 0", "seed: 1"))
    project.edit("dvc.lock", ("schema: ", "# theirs\nschema: "))
    project.run("git", "commit", "-qam", "Theirs")
    project.run("git", "checkout", "-q", "main")
    project.run("git", "merge", "-q", "theirs", code=1)


def kill(commands: Commands, undisturbed: Undisturbed, name: str, folder: Path, **how: Any) -> str:
    """Kill a command once; return whether it was complete, or how what it left was settled."""
    project = killed.copied(undisturbed.source, folder)
    code, said = commands.run(project, *LINEAGE[name], **how)
    assert "Traceback" not in said, said
    told = killed.recover(commands, project)
    now = killed.standing(project)
    if now != undisturbed.after:
        if name not in REPEATED:
            assert now == undisturbed.before, told
        code, said = commands.run(project, *LINEAGE[name])
        assert code == 0, said
        assert killed.standing(project) == undisturbed.after, told
    killed.remove(project)
    if now == undisturbed.after:
        return "completed" if any("completed" in each for each in told) else "whole"
    return "undone" if any("undone: `" in each for each in told) else "not begun"


@pytest.mark.parametrize("name", LINEAGE)
def test_a_command_that_is_killed_is_completed_or_taken_back(name, commands, undisturbed, tmp_path):
    expected = undisturbed(name)
    step = max(1, expected.changes // 5)
    ends = [
        kill(commands, expected, name, tmp_path / str(at), at=at)
        for at in range(0, expected.changes, step)
    ]
    assert len(set(ends)) > 1, "all kills were at the same step"


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAGE)
def test_a_command_is_killed_at_every_change(
    name, commands, undisturbed, tmp_path, record_property
):
    expected = undisturbed(name)
    for at in range(expected.changes):
        end = kill(commands, expected, name, tmp_path / str(at), at=at)
        record_property("killed at a change", f"{name} {end}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["next", "fork", "promote", "forget"])
def test_what_resolves_a_kill_may_be_killed_as_well(
    name, commands, undisturbed, tmp_path, record_property
):
    expected = undisturbed(name)
    for first in range(expected.changes // 4, expected.changes, 5):
        half = killed.copied(expected.source, tmp_path / f"half-{first}")
        commands.run(half, *LINEAGE[name], at=first)
        for second in range(1, 20, 3):
            project = killed.copied(half, tmp_path / f"{first}-{second}")
            _, said = commands.run(project, "resolve", at=second)
            assert "Traceback" not in said, said
            killed.recover(commands, project)
            assert killed.standing(project) in (expected.before, expected.after)
            killed.remove(project)
            record_property("killed while resolving", name)
        killed.remove(half)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", LINEAGE)
def test_a_command_is_killed_at_random_moments(
    name, alone, commands, undisturbed, tmp_path, record_property
):
    expected = undisturbed(name)
    moments = random.Random(f"{name} {alone}")
    for number in range(40):
        after = moments.uniform(0, 1.1 * expected.seconds)
        end = kill(commands, expected, name, tmp_path / str(number), after=after, alone=alone)
        record_property("killed at a moment", f"{name} {end}")
