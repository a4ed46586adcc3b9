"""Read states that earlier releases wrote, and run an update from them.

`make.py` describes how the states in this folder were written, by the code of each release.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from make import run_update, write_project

from renate_stages.state import State, manifest, state

STATES = sorted(path.parent for path in Path(__file__).parent.glob("*/state.json"))


def test_old_states_cover_every_schema_and_store_format():
    indexes = [json.loads((folder / "memory" / "index.json").read_text()) for folder in STATES]
    assert {index["format"] for index in indexes} == {1, 2}
    schemas = {json.loads((folder / "state.json").read_text())["schema"] for folder in STATES}
    assert schemas == set(range(1, manifest.SCHEMA + 1))


@pytest.mark.parametrize("folder", STATES, ids=lambda folder: folder.name)
def test_old_state_is_readable(folder):
    state.check(folder)
    found = State.open(folder)
    assert (found.provenance.update, found.provenance.learner) == (2, "ER")
    assert found.provenance.classes == (0, 1)
    memory = found.memory()
    assert len(memory) == 6
    points, labels = memory.gather(np.arange(6))
    assert ((points[:, 0] > 0) == labels).all()
    assert {n: len(store) for n, store in found.split("holdouts").items()} == {1: 4, 2: 4}
    assert found.evaluations().matrix("accuracy")[2].keys() == {1, 2}


@pytest.mark.parametrize("folder", STATES, ids=lambda folder: folder.name)
def test_update_continues_from_an_old_state(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = write_project(tmp_path)
    shutil.copytree(folder, project.parent)
    run_update(project, 3)
    state.check(project.state)
    found = State.open(project.state)
    assert found.provenance.parent == State.open(folder).identity
    assert sorted(found.split("holdouts")) == [1, 2, 3]
    remembered = found.memory().metadata("update").tolist()
    old = 2 if folder.name.endswith("format-2") else -1  # the first release did not store it
    assert old in remembered and 3 in remembered
