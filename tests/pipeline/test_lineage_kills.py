"""Lineage commands that are killed, at any change or moment, are completed or undone.

After each kill, the test follows the advice of `renate-stages status` and repeats the command if it
was undone; all hashes must equal those of the undisturbed command.
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
    """A command that was not killed, and its effect on a project.

    Args:
        source: The project before the command.
        before, after: Snapshots of the project before and after the command.
        changes: Number of changes that the command makes.
        seconds: Duration of the command.
    """

    source: Sandbox
    before: dict[str, Any]
    after: dict[str, Any]
    changes: int
    seconds: float


@pytest.fixture(scope="module")
def finished(three_updates, tmp_path_factory) -> Sandbox:
    """Return a project with a committed third update, a champion and a previous champion."""
    folder = tmp_path_factory.mktemp("kills") / "finished"
    project = killed.copy_project(three_updates, folder)
    project.stop_tracking()
    project.commit("No tracking")
    project.run("renate-stages", "init")  # sets the remote of the copy
    for number in (2, 3):
        project.run(
            "renate-stages", "promote", "--force", *([f"update-{number}"] if number < 3 else [])
        )
    return project


@pytest.fixture(scope="module")
def undisturbed(finished, commands, tmp_path_factory):
    """Return a function that runs each command once, without killing it."""
    known: dict[str, Undisturbed] = {}

    def run(name: str) -> Undisturbed:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            source = _source(name, finished, folder)
            before = killed.snapshot(source)
            copy = killed.copy_project(source, folder / "after")
            started = time.monotonic()
            code, output = commands.run(copy, *LINEAGE[name], at=folder / "changes")
            seconds = time.monotonic() - started
            assert code == 0, output
            after = killed.snapshot(copy)
            assert after != before and not after["intent"] and not after["left"]
            changes = len((folder / "changes").read_bytes())
            known[name] = Undisturbed(source, before, after, changes, seconds)
        return known[name]

    return run


def _source(name: str, finished: Sandbox, folder: Path) -> Sandbox:
    """Return the project in which to run a command."""
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
        project = killed.copy_project(finished, folder / name)
        damage(project) if name == "repair" else create_merge_conflict(project)
        return project
    return finished


def damage(project: Sandbox) -> None:
    """Overwrite a file of the parent in place, and with it its hard link in DVC's cache."""
    project.run("dvc", "push", "-q")
    path = project.root / "parent-state" / "evaluations.csv"
    path.chmod(0o644)
    path.write_text("damaged")


def create_merge_conflict(project: Sandbox) -> None:
    """Merge a branch with another version of the files that stages write."""
    project.run("git", "checkout", "-q", "-b", "theirs", "update-2")
    project.edit("params.yaml", ("seed: 0", "seed: 1"))
    project.edit("dvc.lock", ("schema: ", "# theirs\nschema: "))
    project.run("git", "commit", "-qam", "Theirs")
    project.run("git", "checkout", "-q", "main")
    project.run("git", "merge", "-q", "theirs", code=1)


def kill(commands: Commands, undisturbed: Undisturbed, name: str, folder: Path, **how: Any) -> str:
    """Kill a command once and recover; return how the interrupted command was resolved."""
    project = killed.copy_project(undisturbed.source, folder)
    code, output = commands.run(project, *LINEAGE[name], **how)
    assert "Traceback" not in output, output
    outputs = killed.recover(commands, project)
    now = killed.snapshot(project)
    if now != undisturbed.after:
        if name not in REPEATED:
            assert now == undisturbed.before, outputs
        code, output = commands.run(project, *LINEAGE[name])
        assert code == 0, output
        assert killed.snapshot(project) == undisturbed.after, outputs
    killed.remove(project)
    if now == undisturbed.after:
        return "completed" if any("completed" in each for each in outputs) else "whole"
    return "undone" if any("undone: `" in each for each in outputs) else "not begun"


@pytest.mark.parametrize("name", LINEAGE)
def test_killed_lineage_command_is_completed_or_undone(name, commands, undisturbed, tmp_path):
    expected = undisturbed(name)
    step = max(1, expected.changes // 3)  # every change is for the slow form
    ends = [
        kill(commands, expected, name, tmp_path / str(at), at=at)
        for at in range(0, expected.changes, step)
    ]
    assert len(set(ends)) > 1, "all kills were at the same step"


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAGE)
def test_lineage_command_killed_at_any_change_is_completed_or_undone(
    name, commands, undisturbed, tmp_path, record_property
):
    expected = undisturbed(name)
    for at in range(expected.changes):
        end = kill(commands, expected, name, tmp_path / str(at), at=at)
        record_property("killed at a change", f"{name} {end}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["next", "fork", "promote", "forget"])
def test_killed_resolve_command_recovers_when_rerun(
    name, commands, undisturbed, tmp_path, record_property
):
    expected = undisturbed(name)
    for first in range(expected.changes // 4, expected.changes, 5):
        half = killed.copy_project(expected.source, tmp_path / f"half-{first}")
        commands.run(half, *LINEAGE[name], at=first)
        for second in range(1, 20, 3):
            project = killed.copy_project(half, tmp_path / f"{first}-{second}")
            _, output = commands.run(project, "resolve", at=second)
            assert "Traceback" not in output, output
            killed.recover(commands, project)
            assert killed.snapshot(project) in (expected.before, expected.after)
            killed.remove(project)
            record_property("killed while resolving", name)
        killed.remove(half)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", LINEAGE)
def test_lineage_command_killed_at_random_moments_is_completed_or_undone(
    name, alone, commands, undisturbed, tmp_path, record_property
):
    expected = undisturbed(name)
    moments = random.Random(f"{name} {alone}")
    for number in range(40):
        after = moments.uniform(0, 1.1 * expected.seconds)
        end = kill(commands, expected, name, tmp_path / str(number), after=after, alone=alone)
        record_property("killed at a moment", f"{name} {end}")
