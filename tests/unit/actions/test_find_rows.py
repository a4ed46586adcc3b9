"""`renate-stages memory --find`: which stores have the examples with given ids."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from renate_stages.actions.find_rows import Place, find_rows
from renate_stages.cli import main
from renate_stages.memory import ExampleStore, StoreWriter, evolve
from renate_stages.memory.identity import given_id, printed, stored_ids, to_array
from renate_stages.state import Provenance, state


def write(path, update, numbers, ids=None) -> ExampleStore:
    known = {} if ids is None else {"id": to_array(map(given_id, ids))}
    with StoreWriter(path, update) as writer:
        known["update"] = np.full(len(numbers), update, np.int32)
        writer.append((np.asarray(numbers, np.float32)[:, None], np.asarray(numbers)), known)
    return ExampleStore.open(path)


@pytest.fixture
def folder(project, tmp_path):
    """A state whose memory has rows of two updates, one of them dropped, and a holdout."""
    old = write(tmp_path / "old", 1, range(3), ["ann", "ben", "ann"])
    new = write(tmp_path / "new", 2, range(3, 6), ["cid", "ann", "dora"])
    tests = write(tmp_path / "tests", 1, [7, 8], ["ben", "emil"])
    for each in ("memory/index.json", "state.json", "holdouts/index.json"):
        (project.parent / each).unlink()
    first = evolve(tmp_path / "first", old, np.arange(3), new, np.arange(3), 2)
    evolve(project.parent / "memory", first, np.arange(5), None, np.arange(0), 3)
    state.write_split(project.parent, "holdouts", {1: tests})
    state.write_manifest(project.parent, Provenance("init", 0))
    return project.parent


def test_rows_are_counted_by_store_and_update(folder):
    assert find_rows(folder, ["ann", "ben", "emil", "dora", "nobody"]) == {
        "ann": {Place("memory", 1): 2, Place("memory", 2): 1},
        "ben": {Place("memory", 1): 1, Place("holdouts/1", 1): 1},
        "emil": {Place("holdouts/1", 1): 1},
        "dora": {Place("memory", 2, dropped=True): 1},
        "nobody": {},
    }


def test_hashed_id_finds_the_row_and_white_space_does_not_matter(folder, project, tmp_path):
    (hashed,) = printed(to_array([given_id("cid")]))
    assert find_rows(folder, [hashed, " cid "]) == {
        hashed: {Place("memory", 2): 1},
        " cid ": {Place("memory", 2): 1},
    }


def test_row_without_an_id_of_its_own_is_found_by_the_hash_of_its_content(project, tmp_path):
    rows = write(tmp_path / "rows", 1, [1, 2])
    for each in ("memory/index.json", "state.json"):
        (project.parent / each).unlink()
    evolve(project.parent / "memory", None, np.arange(0), rows, np.arange(2), 1)
    state.write_manifest(project.parent, Provenance("init", 0))
    (hashed, _) = printed(stored_ids(rows))
    assert find_rows(project.parent, [hashed]) == {hashed: {Place("memory", 1): 1}}


def test_command_prints_a_line_for_each_id(folder):
    arguments = ["memory", "--find", "ann", "--find", "ben", "--find", "dora", "--find", "nobody"]
    done = CliRunner().invoke(main.app, arguments)
    assert done.output.startswith("found in the first state (")
    assert done.output.splitlines()[1:] == [
        "ann: 2 rows of memory (from update 1); 1 row of memory (from update 2)",
        "ben: 1 row of memory (from update 1); 1 row of holdouts/1",
        "dora: 1 dropped row of memory (from update 2), still in its files",
        "nobody: in no store of this state",
    ]


def test_only_one_form_of_the_command_at_a_time(folder):
    done = CliRunner().invoke(main.app, ["memory", "--find", "ann", "--ids"])
    assert done.exit_code == 2 and "only one of" in done.output
