"""Malicious and malformed files in a state: no code in them runs, and each gives a clear error.

Most tests also forge the manifest, so that the readers must refuse the file, and not only the
comparison of hashes.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_results import results_of
from small_updates import updater, write_examples

from renate_stages import files
from renate_stages.errors import DamagedStateError, RenateStagesError
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.memory import Ragged, StoreWriter, evolve
from renate_stages.models import MLP
from renate_stages.models.stored import write_model
from renate_stages.state import Provenance, State, state
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updated_model import write_learner


class Attack:
    """An object whose unpickling creates a folder, as a trace of executed code."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def model_fn(model_state_url: str | None = None) -> MLP:
    if model_state_url is None:
        return MLP(num_inputs=5, num_outputs=3, hidden_size=4)
    return MLP.from_state_dict(torch.load(model_state_url))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A state written by an update of ER, with dead rows in the memory and texts in a holdout."""
    folder = tmp_path_factory.mktemp("hostile") / "parent-state"
    folder.mkdir()
    examples = write_examples(folder.parent / "examples", 30)
    state.write_empty(folder.parent / "empty")
    trained = updater("ER", functions={"model_fn": model_fn}).update(
        UpdateData(State.open(folder.parent / "empty"), examples)
    )
    write_model(folder, trained.model)
    write_learner(folder, trained.learner)
    kept = np.delete(np.arange(30), [3, 4])
    evolve(folder / "memory", examples, kept, None, np.empty(0, int), 1)
    with StoreWriter(folder.parent / "texts", 1) as writer:
        words = Ragged.of([np.array([5, 3]), np.array([8, 8, 1])])
        writer.append((words, np.array([0, 1])), {"source": np.array([b"eu", b"us"])})
    texts = state.ExampleStore.open(folder.parent / "texts")
    state.write_split(folder, "holdouts", {1: texts})
    state.write_split(folder, "validation", {})
    history = EvaluationHistory().with_update(
        1, "after", results_of({1: {"accuracy": 0.5}}, {1: 2})
    )
    history.write(folder / "evaluations.csv")
    state.write_manifest(folder, Provenance("update", 1, learner="ER"))
    return folder


@pytest.fixture
def hostile(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "parent-state"))


def read_all(folder: Path) -> None:
    """Read everything in a state, as the next update does."""
    found = State.open(folder)
    for store in (found.memory(), *found.split("holdouts").values(), *found.split("validation")):
        rows = np.arange(len(store))
        store.gather(rows)
        store.columns(rows, store.spec.all_fields)
    found.evaluations()
    updater("ER", functions={"model_fn": model_fn}).carry_over(UpdateData(found, None))


def forge_manifest(folder: Path) -> None:
    """Update the manifest to the current sizes and hashes of all files."""
    manifest = json.loads((folder / state.MANIFEST).read_text())
    manifest["files"] = files.inventory(folder, without=(state.MANIFEST,))
    files.write_json(folder / state.MANIFEST, manifest)
    state.check(folder)


def edit_json(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


def names(folder: Path) -> list[str]:
    return sorted(files.inventory(folder))


def pickles(trace: Path) -> dict[str, bytes]:
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Attack(trace)], dtype=object), allow_pickle=True)
    torch.save({"state_dict": Attack(trace)}, archive)
    return {
        "pickle": pickle.dumps(Attack(trace)),
        "NumPy's": array.getvalue(),
        "torch's": archive.getvalue(),
    }


def test_unmodified_state_is_read(written):
    state.check(written)
    read_all(written)
    assert len(names(written)) == 17


def test_pickle_in_place_of_any_file_is_refused_and_not_executed(hostile, tmp_path):
    trace = tmp_path / "trace"
    for name in names(hostile):
        path, content = hostile / name, (hostile / name).read_bytes()
        for malicious in pickles(trace).values():
            path.write_bytes(malicious)
            with pytest.raises(DamagedStateError, match=name.replace(".", r"\.")):
                state.check(hostile)
            if name != state.MANIFEST:
                forge_manifest(hostile)
            with pytest.raises(RenateStagesError) as raised:
                read_all(hostile)
            assert Path(name).name in str(raised.value), "the error names the file"
            path.write_bytes(content)
            if name != state.MANIFEST:
                forge_manifest(hostile)
    assert not trace.exists()
    pickle.loads(pickles(trace)["pickle"])
    assert trace.exists(), "the attack works where pickles are loaded"


def test_truncated_file_is_refused(hostile):
    for name in names(hostile):
        path, content = hostile / name, (hostile / name).read_bytes()
        for size in sorted({0, 1, 7, len(content) // 2, len(content) - 1} - {len(content)}):
            path.write_bytes(content[:size])
            if name != state.MANIFEST:
                with pytest.raises(DamagedStateError, match=f"expected {len(content)}"):
                    state.check(hostile, deep=False)
                forge_manifest(hostile)
            if content[size:].strip():  # JSON and CSV can do without their last line break
                with pytest.raises(RenateStagesError):
                    read_all(hostile)
            path.write_bytes(content)
            if name != state.MANIFEST:
                forge_manifest(hostile)


def test_flipped_bits_are_found_by_hash_and_do_not_crash_readers(hostile):
    moments = np.random.default_rng(0)
    for name in names(hostile):
        if name == state.MANIFEST:
            continue
        path, content = hostile / name, (hostile / name).read_bytes()
        for place in moments.integers(0, len(content), 12).tolist():
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(moments.integers(8))
            path.write_bytes(flipped)
            with pytest.raises(DamagedStateError, match=name.replace(".", r"\.")):
                state.check(hostile)
            forge_manifest(hostile)
            try:
                read_all(hostile)  # the changed value may still be valid
            except RenateStagesError as error:
                assert str(error)
            path.write_bytes(content)
            forge_manifest(hostile)


OUTSIDE = ["../secret", "/etc/passwd", "a/../../secret", "./memory/index.json", "", ".", "a//b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_manifest_with_a_path_outside_the_state_is_refused(hostile, name):
    listed = json.loads((hostile / state.MANIFEST).read_text())["files"]
    edit_json(hostile / state.MANIFEST, files={**listed, name: {"sha256": "0", "size": 1}})
    for read in (state.check, State.open):
        with pytest.raises(
            DamagedStateError, match=r"state\.json: it lists .* not a file of the state"
        ):
            read(hostile)


@pytest.mark.parametrize(
    "entry",
    [
        {"sha256": 7, "size": 1},
        {"sha256": ["0" * 64], "size": 1},
        {"sha256": "0" * 63 + "\n", "size": 1},
        {"sha256": "0" * 64, "size": "1"},
        {"sha256": "0" * 64, "size": -1},
        {"sha256": "0" * 64, "size": True},
    ],
)
def test_manifest_entry_with_invalid_size_or_hash_is_refused(hostile, entry):
    listed = json.loads((hostile / state.MANIFEST).read_text())["files"]
    edit_json(hostile / state.MANIFEST, files={**listed, "evaluations.csv": entry})
    for read in (state.check, State.open):
        with pytest.raises(
            DamagedStateError, match=r"its entry for 'evaluations\.csv' is not valid"
        ):
            read(hostile)


@pytest.mark.parametrize("update", ["../../examples", "/etc", "1/../1", "1", True, 1.0, None])
def test_holdout_index_with_anything_but_update_numbers_is_refused(hostile, update):
    edit_json(hostile / "holdouts" / "index.json", updates=[update])
    with pytest.raises(RenateStagesError, match=r"index\.json.*the numbers of updates"):
        State.open(hostile).split("holdouts")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "upgrade"),
        ("update", "1"),
        ("update", -1),
        ("update", True),
        ("parent", 5),
        ("classes", {"0": 1}),
        ("classes", ["a"]),
        ("task_ids", ["a"]),
        ("task_ids", {"1": 1}),
        ("left", 3),
        ("schema", 0),
    ],
)
def test_manifest_with_an_invalid_value_is_refused(hostile, name, value):
    edit_json(hostile / state.MANIFEST, **{name: value})
    with pytest.raises(DamagedStateError, match=name):
        State.open(hostile)


def change_offsets(values):
    return lambda folder: np.save(
        folder / "holdouts" / "1" / "00001-00.inputs.offsets.npy", np.array(values)
    )


def change_live(change):
    def apply(folder):
        path = folder / "memory" / "live.npy"
        live = np.load(path)
        path.unlink()
        np.save(path, change(live))

    return apply


def not_quite_bool(live):
    return np.where(live, 2, 0).astype(np.uint8).view(bool)


def replace_array(name, array):
    return lambda folder: np.save(folder / name, array)


INPUTS = "memory/00001-00.inputs.npy"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_offsets([0, 2, 10**12]), "offsets do not fit"),
        (change_offsets([0, 9, 5]), "offsets do not fit"),
        (change_offsets([-2, 2, 5]), "offsets do not fit"),
        (change_offsets([0, 2, 4, 5]), "expected int64"),
        (change_live(lambda live: ~live), "number of live rows differs"),
        (change_live(lambda live: np.ones(100, bool)), "expected bool"),
        (change_live(not_quite_bool), "values other than true and false"),
        (replace_array(INPUTS, np.zeros((30, 6), np.float32)), "expected float32"),
        (replace_array(INPUTS, np.zeros((29, 5), np.float32)), "expected float32"),
        (replace_array(INPUTS, np.zeros((30, 5), np.float64)), "expected float32"),
        (replace_array(INPUTS, np.asfortranarray(np.zeros((30, 5), np.float32))), "expected"),
    ],
)
def test_arrays_with_invalid_offsets_live_rows_shape_or_dtype_are_refused(hostile, damage, message):
    damage(hostile)
    forge_manifest(hostile)
    with pytest.raises(RenateStagesError, match=message):
        read_all(hostile)


@pytest.mark.parametrize(
    ("shape", "message"),
    [([2**32, 2**32], "expected float32"), ([0], "no bytes"), ([-5], "shape"), (["5"], "shape")],
)
def test_store_index_with_an_impossible_shape_is_refused(hostile, shape, message):
    index = json.loads((hostile / "memory" / "index.json").read_text())
    for each in index["fields"].values():
        each["shape"] = shape
    edit_json(hostile / "memory" / "index.json", fields=index["fields"])
    forge_manifest(hostile)
    with pytest.raises(RenateStagesError, match=message):
        read_all(hostile)


def test_symlink_to_equal_bytes_is_accepted_and_any_other_symlink_is_refused(hostile, tmp_path):
    """With DVC's cache type `symlink`, a checked-out state consists of such links."""
    path = hostile / INPUTS
    path.rename(tmp_path / "cached")
    path.symlink_to(tmp_path / "cached")
    state.check(hostile)
    read_all(hostile)

    (tmp_path / "other").write_bytes(b"x" * path.stat().st_size)
    for target in (tmp_path / "other", tmp_path / "nothing", tmp_path, path, Path("/dev/zero")):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(DamagedStateError, match=r"00001-00\.inputs\.npy"):
            state.check(hostile)
    path.unlink()
    (tmp_path / "cached").rename(path)
    (hostile / "extra").symlink_to("/etc/hostname")
    with pytest.raises(DamagedStateError, match="extra: not part of the state"):
        state.check(hostile)


def test_symlinked_folder_in_a_state_is_refused(hostile, tmp_path):
    shutil.move(hostile / "memory", tmp_path / "memory")
    (hostile / "memory").symlink_to(tmp_path / "memory")
    with pytest.raises(DamagedStateError, match=r"memory/index\.json: missing"):
        state.check(hostile)


@pytest.mark.parametrize("policy", [{"policy": "reservoir"}, {"policy": "reservoir", "seen": -1}])
def test_invalid_state_of_a_memory_policy_is_refused(hostile, policy):
    saved = json.loads((hostile / "learner.json").read_text())["policy"]
    given = saved | policy if "seen" in policy else policy
    edit_json(hostile / "learner.json", policy=given)
    forge_manifest(hostile)
    with pytest.raises(RenateStagesError, match=r"learner\.json.*memory policy 'reservoir'"):
        read_all(hostile)
