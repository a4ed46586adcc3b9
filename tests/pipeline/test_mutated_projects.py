"""Commands in a finished project with one mutated file succeed or report an error.

They print no traceback, do not hang, and change nothing if they refuse. A failure shows the seed.
`tests/unit/test_mutated_files.py` tests the readers of these files with many more mutations.
"""

from __future__ import annotations

from pathlib import Path

import killed_commands as killed
import pytest
from killed_commands import OURS
from mutated_projects import STAGES, Mutated, attempts, small_files
from sandbox import Sandbox
from warm_processes import DVC, WarmProcesses

# Weight with which each command is drawn.
COMMANDS: dict[tuple[str, ...], float] = {
    ("status",): 6,
    ("gate",): 4,
    ("champion",): 4,
    ("memory",): 5,
    ("should-update",): 6,
    ("restore-state",): 3,
    ("verify",): 3,
    ("verify", "--deep"): 3,
    ("verify", "--repair"): 1,
    ("next",): 1.5,
    ("next", "--from", "update-1"): 1.5,
    ("promote", "update-1"): 1.5,
    ("promote", "--force"): 1,
    ("demote",): 1.5,
    ("forget", "--where", "label == 3"): 1.5,
    ("resolve",): 1,
    ("init",): 1,
}
LONG: dict[tuple[str, ...], float] = {
    ("prepare",): 2,
    ("tune",): 0.3,
    ("train",): 2,
    ("export",): 2,
    ("publish",): 2,
}
BY_GIT = ("parent.dvc", "champion.dvc", "dvc.lock", "params.yaml", "reports/verdict.json")
BY_GIT += ("dvc.yaml", "data/incoming.dvc", "forget.yaml")
"""Lineage commands read these files from commits, without opening them."""


@pytest.fixture(scope="module")
def promoted(three_updates, tmp_path_factory) -> Sandbox:
    """Return a project with a finished third update, a champion and a previous champion."""
    project = killed.copy_project(three_updates, tmp_path_factory.mktemp("promoted") / "project")
    project.stop_tracking()
    project.commit("No tracking")
    project.run("renate-stages", "init")  # sets the remote of the copy
    for number in (1, 2):
        project.run("renate-stages", "promote", "--force", f"update-{number}")
    return project


@pytest.fixture(scope="module")
def finished(promoted, tmp_path_factory) -> Sandbox:
    """Return the same project after a short, tuned and pushed third update."""
    project = killed.copy_project(promoted, tmp_path_factory.mktemp("finished") / "project")
    project.edit(
        "params.yaml",
        ("max_epochs: 20", "max_epochs: 1"),
        ("permutations: 1000", "permutations: 20"),
        ("max_rows: 1000", "max_rows: 40"),
        ("learning_rate: 0.05", "learning_rate: {loguniform: [0.01, 0.1]}"),
        ("max_trials: 20", "max_trials: 2"),
    )
    project.commit("Quick")
    project.run("renate-stages", "init")
    project.run("dvc", "repro", "-q")
    project.commit("Update 3")
    project.run("dvc", "push", "-q")
    return project


def faults_of(
    finished: Sandbox,
    folder: Path,
    commands: dict[tuple[str, ...], float],
    modules: tuple[str, ...],
    count: int,
    seed: int,
) -> list[str]:
    """Change files and run commands; return what went wrong."""
    warm = WarmProcesses("mutated_projects", *OURS, *DVC, *modules)
    try:
        mutated = Mutated.copy(finished, folder / "copy", warm)
        pairs = {each: files_of(mutated, each, folder / "opened") for each in commands}
        weights = list(commands.values())
        ends = list(attempts(mutated, pairs, weights, count, seed))
    finally:
        warm.close()
    assert len({outcome.code for _, outcome in ends}) > 1, "all exit codes are equal"
    return [f"{what}\n{end.fault}\n{end.output[-3000:]}" for what, end in ends if end.fault]


def files_of(mutated: Mutated, command: tuple[str, ...], opened: Path) -> list[str]:
    """Return the small files that a command reads in the finished project."""
    opened.unlink(missing_ok=True)
    outcome = mutated.run(*command, opened=opened)
    mutated.undo_changes()
    assert outcome.fault is None, f"{command}: {outcome.output}"
    found = small_files(mutated.source, opened.read_text().splitlines())
    return sorted({*found, *(BY_GIT if command not in LONG else ())})


READ = ("renate_stages.memory.composition", "renate_stages.shift.decision")
READ += ("renate_stages.stages.restore_state",)


def test_commands_accept_or_refuse_a_mutated_file(promoted, tmp_path):
    assert not faults_of(promoted, tmp_path, COMMANDS, READ, 15, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_commands_accept_or_refuse_many_mutated_files(finished, tmp_path, seed):
    assert not faults_of(finished, tmp_path, COMMANDS, READ, 400, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_stages_accept_or_refuse_many_mutated_files(finished, tmp_path, seed):
    assert not faults_of(finished, tmp_path, LONG, (*READ, *STAGES), 300, seed)
