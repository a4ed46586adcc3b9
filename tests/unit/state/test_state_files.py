"""The state directory: what it says of itself, and every damage found before anything is read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from renate_stages import errors, files
from renate_stages.memory import StoreWriter
from renate_stages.state import Provenance, State, state


@pytest.fixture
def whole(tmp_path):
    """A state as an update leaves it, with stand-ins for the files that need torch."""
    folder = tmp_path / "parent-state"
    folder.mkdir()
    for name in (*state.MODEL_FILES, *state.LEARNER_FILES):
        (folder / name).write_bytes(name.encode())
    for name in ("memory", "source"):
        with StoreWriter(folder / name if name == "memory" else tmp_path / name, 3) as writer:
            writer.append((np.arange(8.0).reshape(4, 2), np.array([0, 1, 1, 2])))
    source = state.ExampleStore.open(tmp_path / "source")
    state.write_split(folder, "holdouts", {3: source, 1: source})
    state.write_split(folder, "validation", {3: source})
    state.EvaluationHistory().with_update(3, "after", {3: {"accuracy": 0.5}}, {3: 4}).write(
        folder / "evaluations.csv"
    )
    made = Provenance("update", 3, "p" * 64, "i" * 64, "ER", (0, 1, 2), {"1": "a", "3": "b"})
    state.write_manifest(folder, made)
    return folder


def test_a_state_is_read_as_it_was_written(whole):
    state.check(whole)
    found = State.open(whole)
    assert found.provenance == Provenance(
        "update", 3, "p" * 64, "i" * 64, "ER", (0, 1, 2), {"1": "a", "3": "b"}
    )
    assert found.identity == files.sha256(whole / "state.json")
    assert found.label == f"update 3 ({found.identity[:8]})"
    assert found.has_model and found.has_learner
    assert len(found.memory()) == 4
    assert list(found.split("holdouts")) == [1, 3] and list(found.split("validation")) == [3]
    assert found.evaluations().matrix("accuracy") == {3: {3: 0.5}}


def test_examples_may_lie_elsewhere_than_the_model(whole, tmp_path):
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(whole / "state.json", restored)
    found = State.open(restored, examples=whole)
    assert len(found.memory()) == 4 and not found.has_model
    assert found.identity == State.open(whole).identity


def test_the_empty_state_is_of_no_update_and_holds_nothing(tmp_path):
    state.write_empty(tmp_path)
    state.check(tmp_path)
    found = State.open(tmp_path)
    assert found.provenance == Provenance("init", 0)
    assert found.label == f"the first state ({found.identity[:8]})"
    assert not found.has_model and not found.has_learner and len(found.memory()) == 0
    assert found.split("holdouts") == found.split("validation") == {}
    assert found.identity == ("d62d36cd8f0095a0b9ce0fa89e7d4342ea906da11ff733023abdc20d9db49899"), (
        "the pointer to it is in every project: its bytes never change within a schema"
    )


def everything_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_every_file_is_guarded_against_every_damage(whole):
    for name in everything_in(whole):
        if name == state.MANIFEST:
            continue
        path, content = whole / name, (whole / name).read_bytes()
        replaced = {
            "missing": None,
            "expected": content[:-1],
            "its content changed": bytes([content[0] ^ 1]) + content[1:],
        }
        for said, damaged in replaced.items():
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(errors.DamagedStateError) as raised:
                state.check(whole)
            assert f"\n  - {name}: " in str(raised.value) and said in str(raised.value)
            assert str(raised.value).count("\n  - ") == 1
            path.write_bytes(content)
    state.check(whole)


def test_all_damage_is_told_at_once_with_what_mends_it(whole):
    (whole / "model.safetensors").unlink()
    (whole / "model.json").write_text("x")
    (whole / "notes.txt").touch()
    with pytest.raises(errors.DamagedStateError) as raised:
        state.check(whole)
    assert str(raised.value).splitlines()[1:4] == [
        "  - model.json: 1 bytes, expected 10",
        "  - model.safetensors: missing",
        "  - notes.txt: not part of the state",
    ]
    assert "`dvc checkout --force parent.dvc`" in str(raised.value)
    assert "`dvc pull parent.dvc`" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a manifest"),
        (b"[1", "not a manifest"),
        (b"[]", "not a manifest"),
        (b"null", "not a manifest"),
        (b"{}", "not a manifest"),
        (b"\xff\xfe", "not a manifest"),
        (b'{"schema": 1}', "lacks classes, files, inputs, kind"),
    ],
)
def test_a_manifest_that_is_none_is_told(whole, content, said):
    (whole / "state.json").write_bytes(content)
    for read in (State.open, state.check):
        with pytest.raises(errors.DamagedStateError, match=f"state.json: {said}"):
            read(whole)


@pytest.mark.parametrize("listed", [[], "all", {"model.json": 3}, {"model.json": {"size": 10}}])
def test_a_manifest_whose_list_of_files_is_none_is_told(whole, listed):
    manifest = json.loads((whole / "state.json").read_text())
    (whole / "state.json").write_text(json.dumps({**manifest, "files": listed}))
    with pytest.raises(errors.DamagedStateError, match="its list of files is not valid"):
        state.check(whole)


@pytest.mark.parametrize("schema", [2, 99, "1", None])
def test_a_state_of_a_newer_version_is_not_read(whole, schema):
    manifest = json.loads((whole / "state.json").read_text())
    (whole / "state.json").write_text(json.dumps({"schema": schema, "new": manifest["files"]}))
    with pytest.raises(errors.NewerStateError) as raised:
        State.open(whole)
    assert f"its schema is {schema!r}, but this version reads at most 1" in str(raised.value)
    assert "upgrade renate-stages" in str(raised.value)


def test_a_missing_state_says_where_to_get_it(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"renate-stages init.*dvc pull parent\.dvc"):
        State.open(tmp_path / "parent-state")
    with pytest.raises(errors.MissingFileError, match="check the path"):
        State.open(tmp_path / "restored")
    (tmp_path / "restored.dvc").touch()
    with pytest.raises(errors.MissingFileError, match=r"dvc checkout restored\.dvc"):
        State.open(tmp_path / "restored")


def test_a_quick_check_reads_no_example_and_a_deep_one_all(whole, monkeypatch):
    (path,) = (p for p in (whole / "memory").iterdir() if p.name.endswith("targets.npy"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    read = []
    sha256 = state.files.sha256
    monkeypatch.setattr(state.files, "sha256", lambda p: (read.append(p.suffix), sha256(p))[1])
    state.check(whole, deep=False)
    assert ".npy" not in read and ".safetensors" in read
    with pytest.raises(errors.DamagedStateError, match=r"targets\.npy: its content changed"):
        state.check(whole)


def test_an_older_schema_is_migrated_step_by_step(whole, monkeypatch):
    """A state once written stays readable: each schema has what turns it into the next."""
    monkeypatch.setattr(state, "SCHEMA", 3)
    steps = {1: lambda m: {**m, "new": "two"}, 2: lambda m: {**m, "update": m["update"] + 10}}
    monkeypatch.setattr(state, "MIGRATIONS", steps)
    before = state.files.read_json(whole / state.MANIFEST)
    found = state.read_manifest(whole)
    assert (found["new"], found["update"]) == ("two", before["update"] + 10)
    assert state.files.read_json(whole / state.MANIFEST) == before


def test_every_schema_before_this_one_has_its_migration():
    assert set(state.MIGRATIONS) == set(range(1, state.SCHEMA))
