"""Datasets of the package `datasets` become stores; run by `make test-extras`."""

from __future__ import annotations

import datetime
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from renate_stages.data import Rejected, ingest
from renate_stages.data.modules.hugging_face import HuggingFace
from renate_stages.errors import (
    AllRowsRejectedError,
    InvalidModuleSettingError,
    MissingColumnError,
    MissingDataFileError,
    MissingExtraError,
)
from renate_stages.preprocessing.images import ImagePreprocessing
from renate_stages.tasks.labels import LabelNames


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "renate-stages\[datasets\]"'):
        HuggingFace(tmp_path, inputs="text").setup()


@pytest.mark.parametrize(
    "settings",
    [
        {"inputs": []},
        {"hub": "a/b"},
        {"revision": "main"},
        {"size": -1},
        {"normalize": "x"},
        {"inputs": "a", "text": "b"},
        {"text": None, "lower": False},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings):
    with pytest.raises(InvalidModuleSettingError, match=f"{next(iter(settings))}|revision"):
        HuggingFace(tmp_path, **settings)


def features(**columns):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.Features(columns), datasets


def stored(module, folder, split="train_data"):
    module.setup()
    names = LabelNames()
    return ingest(getattr(module, split)(), folder, 1, "train", numbers=names.numbers), names


def png(value: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(np.full((3, 2 + value, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_images_stay_encoded_and_class_labels_have_names(tmp_path):
    _, datasets = features()
    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    images = [
        {"bytes": each, "path": None} for each in (png(1), b"damaged", png(2), png(3), png(4))
    ]
    rows = {"image": images, "label": [1, 0, 0, None, -1]}
    dataset = datasets.Dataset.from_dict(rows, features=kinds)
    dataset.save_to_disk(tmp_path / "in")
    module = HuggingFace(tmp_path / "in", size=4)
    store, names = stored(module, tmp_path / "store")
    assert [row.tobytes() for row in store.column("inputs")] == [png(1), png(2)]
    assert store.column("targets").tolist() == [0, 1] and names.names == ("cat", "dog")
    assert isinstance(module.preprocessing, ImagePreprocessing) and module.rows_seen == 5
    assert module.rejected == [
        Rejected("train", 2, "not an image that Pillow can read"),
        Rejected("train", 4, "label is missing"),
        Rejected("train", 5, "label is missing"),
    ]


def test_numbers_texts_lists_and_arrays_are_stored_by_name(tmp_path):
    _, datasets = features()
    kinds = datasets.Features(
        {
            "age": datasets.Value("float64"),
            "count": datasets.Value("int8"),
            "text": datasets.Value("string"),
            "ids": datasets.List(datasets.Value("int32")),
            "pair": datasets.List(datasets.Value("float32"), length=2),
            "grid": datasets.Array2D((2, 2), "uint8"),
            "y": datasets.Value("float32"),
            "key": datasets.Value("string"),
            "day": datasets.Value("date32"),
            "sure": datasets.Value("float32"),
        }
    )
    grids = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    rows = {
        "age": [0.5, 1.5, 2.5],
        "count": [1, 2, 3],
        "text": ["né", "", "abc"],
        "ids": [[1], [], [2, 3]],
        "pair": [[1, 2], [3, 4], [5, 6]],
        "grid": grids,
        "y": [0.25, 0.5, 0.75],
        "key": ["a", "b", "c"],
        "day": [datetime.date(2026, 1, day) for day in (1, 2, 3)],
        "sure": [0.5, 0.0, 4.0],
    }
    datasets.Dataset.from_dict(rows, features=kinds).select([2, 0, 1]).save_to_disk(
        tmp_path / "in/d"
    )
    module = HuggingFace(
        tmp_path / "in",
        inputs=["age", "count", "text", "ids", "pair", "grid"],
        target="y",
        id="key",
        time="day",
        weight="sure",
    )
    store, _ = stored(module, tmp_path / "store")
    assert store.column("inputs.age").tolist() == [2.5, 0.5, 1.5]
    assert store.column("inputs.age").dtype == np.float32
    assert store.column("inputs.count").dtype == np.int64
    assert [row.tobytes().decode() for row in store.column("inputs.text")] == ["abc", "né", ""]
    assert [row.tolist() for row in store.column("inputs.ids")] == [[2, 3], [1], []]
    assert store.column("inputs.pair").tolist() == [[5, 6], [1, 2], [3, 4]]
    assert (store.column("inputs.grid") == grids[[2, 0, 1]]).all()
    assert store.column("targets").tolist() == [0.75, 0.25, 0.5]
    assert store.column("meta.time").tolist()[0] == b"2026-01-03"
    assert store.column("meta.weight").tolist() == [4, 0.5, 0]
    assert module.preprocessing is None


def test_text_is_stored_as_by_the_text_module_and_read_by_its_vocabulary(tmp_path):
    _, datasets = features()
    rows = {
        "message": ["cafe\u0301 late", "", None, "late parcel"],
        "title": ["a", "b", "c", "d"],
        "age": [1, 2, 3, 4],
        "label": ["x", "y", "x", "y"],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "in")
    module = HuggingFace(tmp_path / "in", text="message", min_count=1)
    store, _ = stored(module, tmp_path / "store")
    assert [row.tobytes().decode() for row in store.column("inputs")] == [
        "café late",
        "",
        "late parcel",
    ]
    assert module.rejected == [Rejected("train", 3, "message is missing")]
    module.preprocessing.fit(store)
    assert module.preprocessing.words == ["late", "café", "parcel"]
    later = HuggingFace(tmp_path / "in", text="title", min_count=1)
    later.preprocessing = module.preprocessing
    later.setup()
    assert later.preprocessing.words == module.preprocessing.words
    pairs = HuggingFace(tmp_path / "in", text=["title", "message"])
    store, _ = stored(pairs, tmp_path / "pairs")
    assert store.column("inputs")[1].tobytes() == b"b\x1f"
    with pytest.raises(MissingDataFileError, match=r"'age' of train .* expected texts"):
        HuggingFace(tmp_path / "in", text="age").setup()


def test_splits_are_used_as_they_are(tmp_path):
    _, datasets = features()
    parts = {
        name: datasets.Dataset.from_dict({"x": [number] * rows, "label": [number] * rows})
        for number, (name, rows) in enumerate({"train": 3, "validation": 2, "test": 1}.items())
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "in")
    module = HuggingFace(tmp_path / "in", inputs="x")
    store, _ = stored(module, tmp_path / "store", "val_data")
    assert store.column("inputs").tolist() == [1, 1]
    assert (len(module.train_data()), len(module.test_data())) == (3, 1)
    datasets.DatasetDict({"train": parts["train"], "extra": parts["test"]}).save_to_disk(
        tmp_path / "other"
    )
    with pytest.raises(MissingDataFileError, match="split 'extra'"):
        HuggingFace(tmp_path / "other", inputs="x").setup()


def test_what_cannot_be_used_is_named(tmp_path):
    _, datasets = features()
    with pytest.raises(MissingDataFileError, match="no dataset"):
        HuggingFace(tmp_path, inputs="x").setup()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.json").write_text("{")
    with pytest.raises(MissingDataFileError, match="it cannot be read"):
        HuggingFace(tmp_path / "damaged", inputs="x").setup()
    rows = {"x": [{"a": 1}], "label": [0], "none": [None]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "in")
    with pytest.raises(MissingColumnError, match=r"lable.*did you mean 'label'"):
        HuggingFace(tmp_path / "in", inputs="x", target="lable").setup()
    with pytest.raises(MissingDataFileError, match=r"column 'x' of train is .*expected numbers"):
        HuggingFace(tmp_path / "in", inputs="x").setup()
    with pytest.raises(AllRowsRejectedError, match="train, row 1: none is missing"):
        HuggingFace(tmp_path / "in", inputs="none").setup()


def test_a_dataset_of_the_hub_is_loaded_at_its_revision(tmp_path, monkeypatch):
    _, datasets = features()
    calls = []

    def load(*names, **options):
        calls.append((names, options))
        return datasets.Dataset.from_dict({"x": [1.0], "label": [0]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    module = HuggingFace(tmp_path, hub="a/b", revision="v1", inputs="x")
    module.setup()
    assert calls == [(("a/b", None), {"revision": "v1"})] and len(module.train_data()) == 1
