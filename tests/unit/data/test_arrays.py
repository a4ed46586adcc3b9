"""Files of arrays become stores with the same values; nothing in a file is executed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from renate_stages.data import ingest
from renate_stages.data.modules.arrays import Arrays
from renate_stages.errors import (
    ColumnLengthError,
    InvalidModuleSettingError,
    MissingDataFileError,
)
from renate_stages.tasks.labels import LabelNames

IMAGES = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
LABELS = np.array([0, 1, 2, 1, 0])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    np.save(folder / "inputs.npy", IMAGES)
    np.save(folder / "targets.npy", LABELS)
    np.savez(folder / "more.npz", age=LABELS * 1.5, names=np.array(list("abcba")))
    save_file({"x": torch.full((5, 2), 0.5, dtype=torch.bfloat16)}, folder / "t.safetensors")
    return folder


def stored(tmp_path, module):
    module.setup()
    numbers = LabelNames().numbers
    return ingest(module.train_data(), tmp_path / "store", 1, "train", numbers=numbers)


def test_files_of_numpy_are_mapped_and_stored_with_their_dtypes(folder, tmp_path):
    store = stored(tmp_path, module := Arrays(folder))
    assert isinstance(module.train_data().dataset.inputs.base, np.memmap)
    assert store.column("inputs").dtype == np.uint8 and module.rows_seen == 5
    assert (store.column("inputs") == IMAGES).all() and (store.column("targets") == LABELS).all()


def test_several_arrays_with_names_and_metadata(folder, tmp_path):
    module = Arrays(
        folder,
        inputs={"image": "inputs.npy", "age": "more.npz:age", "x": "t.safetensors:x"},
        targets="more.npz:names",
        metadata={"id": "targets.npy", "source": "more.npz:names"},
    )
    store = stored(tmp_path, module)
    assert store.column("inputs.age").tolist() == (LABELS * 1.5).tolist()
    assert store.column("inputs.x").tolist() == [[0.5, 0.5]] * 5
    assert store.column("targets").tolist() == [0, 1, 2, 1, 0]
    assert store.column("meta.source").tolist() == [b"a", b"b", b"c", b"b", b"a"]


def test_a_share_becomes_validation_data(folder):
    module = Arrays(folder, val_size=0.4)
    module.setup()
    assert (len(module.train_data()), len(module.val_data())) == (3, 2)


def test_arrays_of_different_lengths_are_refused(folder):
    np.save(folder / "targets.npy", LABELS[:4])
    with pytest.raises(ColumnLengthError, match="targets' has 4 rows, but 'inputs' has 5"):
        Arrays(folder).setup()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("input.npy", "input.npy: the file does not exist.*inputs.npy"),
        ("more.npz:agee", "more.npz: it has no array 'agee'.*age"),
        ("t.safetensors:y", "t.safetensors: it has no array 'y'"),
        ("../other.npy", "outside the folder"),
        ("cut.npy", "cut.npy: it cannot be read"),
        ("cut.npz:a", "cut.npz: it cannot be read"),
        ("objects.npy", "objects.npy: it cannot be read: .*[Oo]bject"),
        ("one.npy", "has no rows, but a single value"),
    ],
)
def test_files_that_cannot_be_used_are_named(folder, inputs, message):
    (folder / "cut.npy").write_bytes((folder / "inputs.npy").read_bytes()[:90])
    (folder / "cut.npz").write_bytes((folder / "more.npz").read_bytes()[:90])
    np.save(folder / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    np.save(folder / "one.npy", np.float32(3))
    with pytest.raises(MissingDataFileError, match=message):
        Arrays(folder, inputs=inputs).setup()


@pytest.mark.parametrize("inputs", ["more.npz", "inputs.npy:a", "inputs.csv", {"a": 3}])
def test_names_of_another_form_are_refused(folder, inputs):
    (folder / "inputs.csv").touch()
    with pytest.raises(InvalidModuleSettingError, match=r"FILE:NAME"):
        Arrays(folder, inputs=inputs).setup()


@pytest.mark.parametrize("setting", [{"inputs": {}}, {"targets": 3}, {"metadata": ["a"]}])
def test_settings_of_another_type_are_refused(tmp_path, setting):
    with pytest.raises(InvalidModuleSettingError, match=next(iter(setting))):
        Arrays(tmp_path, **setting)
