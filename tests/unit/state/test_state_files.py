"""The state directory: its manifest, and damage that is found before any file is read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from small_results import results_of

from renate_stages import errors, files
from renate_stages.memory import StoreWriter
from renate_stages.state import Provenance, State, manifest, state


@pytest.fixture
def state_dir(tmp_path):
    """A state as an update writes it, with placeholders for the files that need torch."""
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
    state.EvaluationHistory().with_update(
        3, "after", results_of({3: {"accuracy": 0.5}}, {3: 4})
    ).write(folder / "evaluations.csv")
    made = Provenance("update", 3, "p" * 64, "i" * 64, "ER", (0, 1, 2), {"1": "a", "3": "b"})
    state.write_manifest(folder, made)
    return folder


def test_state_is_read_as_it_was_written(state_dir):
    state.check(state_dir)
    found = State.open(state_dir)
    assert found.provenance == Provenance(
        "update", 3, "p" * 64, "i" * 64, "ER", (0, 1, 2), {"1": "a", "3": "b"}
    )
    assert found.identity == files.sha256(state_dir / "state.json")
    assert found.label == f"update 3 ({found.identity[:8]})"
    assert found.has_model and found.has_learner
    assert len(found.memory()) == 4
    assert list(found.split("holdouts")) == [1, 3] and list(found.split("validation")) == [3]
    assert found.evaluations().matrix("accuracy") == {3: {3: 0.5}}


def test_examples_can_be_read_from_another_folder_than_the_manifest(state_dir, tmp_path):
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(state_dir / "state.json", restored)
    found = State.open(restored, examples=state_dir)
    assert len(found.memory()) == 4 and not found.has_model
    assert found.identity == State.open(state_dir).identity


def test_empty_state_has_update_0_a_fixed_identity_and_no_content(tmp_path):
    state.write_empty(tmp_path)
    state.check(tmp_path)
    found = State.open(tmp_path)
    assert found.provenance == Provenance("init", 0)
    assert found.label == f"the first state ({found.identity[:8]})"
    assert not found.has_model and not found.has_learner and len(found.memory()) == 0
    assert found.split("holdouts") == found.split("validation") == {}
    assert found.identity == ("d62d36cd8f0095a0b9ce0fa89e7d4342ea906da11ff733023abdc20d9db49899"), (
        "every project has a pointer to it: its bytes must not change within a schema"
    )


def list_files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_missing_truncated_and_changed_files_are_reported_by_name(state_dir):
    for name in list_files(state_dir):
        if name == state.MANIFEST:
            continue
        path, content = state_dir / name, (state_dir / name).read_bytes()
        replaced = {
            "missing": None,
            "expected": content[:-1],
            "its content changed": bytes([content[0] ^ 1]) + content[1:],
        }
        for message, damaged in replaced.items():
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(errors.DamagedStateError) as raised:
                state.check(state_dir)
            assert f"\n  - {name}: " in str(raised.value) and message in str(raised.value)
            assert str(raised.value).count("\n  - ") == 1
            path.write_bytes(content)
    state.check(state_dir)


def test_all_damaged_files_are_reported_at_once_with_a_fix(state_dir):
    (state_dir / "model.safetensors").unlink()
    (state_dir / "model.json").write_text("x")
    (state_dir / "notes.txt").touch()
    with pytest.raises(errors.DamagedStateError) as raised:
        state.check(state_dir)
    assert str(raised.value).splitlines()[1:4] == [
        "  - model.json: 1 bytes, expected 10",
        "  - model.safetensors: missing",
        "  - notes.txt: not part of the state",
    ]
    assert "`dvc checkout --force parent.dvc`" in str(raised.value)
    assert "`dvc pull parent.dvc`" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_invalid_manifest_is_refused(state_dir, content, message):
    (state_dir / "state.json").write_bytes(content)
    for read in (State.open, state.check):
        with pytest.raises(errors.DamagedStateError, match=f"state.json: {message}"):
            read(state_dir)


@pytest.mark.parametrize("listed", [[], "all", {"model.json": 3}, {"model.json": {"size": 10}}])
def test_manifest_with_an_invalid_file_list_is_refused(state_dir, listed):
    manifest = json.loads((state_dir / "state.json").read_text())
    (state_dir / "state.json").write_text(json.dumps({**manifest, "files": listed}))
    with pytest.raises(errors.DamagedStateError, match="its list of files is not valid"):
        state.check(state_dir)


@pytest.mark.parametrize("schema", [2, 99, "1", None])
def test_state_of_a_newer_or_invalid_schema_is_refused(state_dir, schema):
    manifest = json.loads((state_dir / "state.json").read_text())
    (state_dir / "state.json").write_text(json.dumps({"schema": schema, "new": manifest["files"]}))
    with pytest.raises(errors.NewerStateError) as raised:
        State.open(state_dir)
    assert f"its schema is {schema!r}, but this version reads at most 1" in str(raised.value)
    assert "upgrade renate-stages" in str(raised.value)


def test_missing_state_error_says_how_to_get_it(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"renate-stages init.*dvc pull parent\.dvc"):
        State.open(tmp_path / "parent-state")
    with pytest.raises(errors.MissingFileError, match="check the path"):
        State.open(tmp_path / "restored")
    (tmp_path / "restored.dvc").touch()
    with pytest.raises(errors.MissingFileError, match=r"dvc checkout restored\.dvc"):
        State.open(tmp_path / "restored")


def test_quick_check_skips_example_arrays_and_deep_check_reads_them(state_dir, monkeypatch):
    (path,) = (p for p in (state_dir / "memory").iterdir() if p.name.endswith("targets.npy"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    read = []
    sha256 = state.files.sha256
    monkeypatch.setattr(state.files, "sha256", lambda p: (read.append(p.suffix), sha256(p))[1])
    state.check(state_dir, deep=False)
    assert ".npy" not in read and ".safetensors" in read
    with pytest.raises(errors.DamagedStateError, match=r"targets\.npy: its content changed"):
        state.check(state_dir)


def test_older_schema_is_migrated_step_by_step(state_dir, monkeypatch):
    """Old states must stay readable: each schema has a migration to the next one."""
    monkeypatch.setattr(manifest, "SCHEMA", 3)
    steps = {1: lambda m: {**m, "new": "two"}, 2: lambda m: {**m, "update": m["update"] + 10}}
    monkeypatch.setattr(manifest, "MIGRATIONS", steps)
    before = state.files.read_json(state_dir / state.MANIFEST)
    found = manifest.read_manifest(state_dir)
    assert (found["new"], found["update"]) == ("two", before["update"] + 10)
    assert state.files.read_json(state_dir / state.MANIFEST) == before


def test_every_older_schema_has_a_migration():
    assert set(manifest.MIGRATIONS) == set(range(1, manifest.SCHEMA))
