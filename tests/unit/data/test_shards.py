"""Tar files in WebDataset's format become stores, read without unpacking."""

from __future__ import annotations

import gzip
import json
import tarfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from renate_stages.data import Rejected, ingest
from renate_stages.data.modules.shards import Shards
from renate_stages.errors import (
    AllRowsRejectedError,
    InvalidModuleSettingError,
    MissingDataFileError,
    ReusedNamesError,
)
from renate_stages.memory.earlier_rows import EarlierRows
from renate_stages.preprocessing.images import ImagePreprocessing
from renate_stages.state.new_data import check_row_names
from renate_stages.tasks.labels import LabelNames


def image(value: int, kind: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.fromarray(np.full((3, 2 + value, 3), value, np.uint8)).save(stream, kind)
    return stream.getvalue()


def array(values) -> bytes:
    stream = BytesIO()
    np.save(stream, np.asarray(values), allow_pickle=True)
    return stream.getvalue()


def write(path, *members):
    """Write `(name, bytes)` as a tar file, as WebDataset's TarWriter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))


def stored(module, folder):
    module.setup()
    names = LabelNames()
    return ingest(module.train_data(), folder, 1, "train", numbers=names.numbers), names


def test_images_and_labels_of_several_shards_in_order(tmp_path):
    write(tmp_path / "in/b-1.tar", ("z.png", image(3)), ("z.cls", b"1"))
    first = [
        ("x.jpg", image(1, "JPEG")),
        ("x.cls", b"0"),
        ("sub/y.png", image(2)),
        ("sub/y.cls", b"2"),
    ]
    write(tmp_path / "in/a/0.tar", *first, ("__url__", b"no extension"))
    module = Shards(tmp_path / "in", size=4)
    store, _ = stored(module, tmp_path / "store")
    expected = [image(1, "JPEG"), image(2), image(3)]
    assert [row.tobytes() for row in store.column("inputs")] == expected
    assert store.column("targets").tolist() == [0, 2, 1] and module.rows_seen == 3
    assert isinstance(module.preprocessing, ImagePreprocessing)


def test_names_of_labels_metadata_and_ids(tmp_path):
    from renate_stages.memory.identity import given_id, stored_ids, to_array

    rows = [{"breed": "pug", "shop": "a", "day": 3}, {"breed": "cat", "shop": "b", "day": 4}]
    members = []
    for row, each in enumerate(rows):
        members += [(f"{row}.png", image(row)), (f"{row}.json", json.dumps(each).encode())]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in", target="json:breed", source="json:shop", time="json:day")
    store, names = stored(module, tmp_path / "store")
    assert names.names == ("pug", "cat") and store.column("targets").tolist() == [0, 1]
    assert store.column("meta.source").tolist() == [b"a", b"b"]
    assert store.column("meta.time").tolist() == [3, 4]
    assert (stored_ids(store) == to_array([given_id("0"), given_id("1")])).all()


def test_samples_with_an_unusable_weight_are_rejected(tmp_path):
    members = []
    for row, weight in enumerate(["2.5", "-1", '"much"', "0"]):
        members += [(f"{row}.txt", b"x"), (f"{row}.json", f'{{"w": {weight}}}'.encode())]
        members += [(f"{row}.cls", b"1")]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in", inputs={"x": "txt"}, weight="json:w")
    store, _ = stored(module, tmp_path / "store")
    assert store.column("meta.weight").tolist() == [2.5, 0]
    reasons = [each.reason for each in module.rejected]
    assert reasons[0].startswith("json:w is no weight") and reasons[1] == "json:w is not a number"


def test_arrays_and_texts_as_a_dict_of_inputs(tmp_path):
    members = []
    for row, text in enumerate(["né", "", "abc"]):
        members += [(f"{row}.left.npy", array(np.full(2, row, np.int16)))]
        members += [(f"{row}.txt", text.encode()), (f"{row}.y.npy", array([row, 0.5]))]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in", inputs={"x": "left.npy", "text": "txt"}, target="y.npy")
    store, _ = stored(module, tmp_path / "store")
    assert store.column("inputs.x").tolist() == [[0, 0], [1, 1], [2, 2]]
    assert store.column("inputs.x").dtype == np.int16
    assert [row.tobytes().decode() for row in store.column("inputs.text")] == ["né", "", "abc"]
    assert store.column("targets").tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]
    assert module.preprocessing is None


def test_text_is_stored_as_by_the_text_module_and_read_by_its_vocabulary(tmp_path):
    texts = [b"cafe\xcc\x81 late", b"", b"late \xff", b"late parcel"]
    members = []
    for row, text in enumerate(texts):
        members += [(f"{row}.txt", text), (f"{row}.json", b'{"y": "a", "note": "too late"}')]
    members += [("4.json", b'{"y": "a", "note": null}'), ("5.txt", b"x"), ("5.json", b"[")]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in", text="txt", target="json:y", min_count=1)
    store, _ = stored(module, tmp_path / "store")
    found = [row.tobytes().decode() for row in store.column("inputs")]
    assert found == ["café late", "", "late parcel"]
    reasons = {each.place: each.reason for each in module.rejected}
    assert reasons == {
        "0.tar/2": "txt is not UTF-8",
        "0.tar/4": "txt is missing",
        "0.tar/5": "json:y cannot be read",
    }
    module.preprocessing.fit(store)
    assert module.preprocessing.words == ["late", "café", "parcel"]
    later = Shards(tmp_path / "in", text="json:note", target="json:y", max_length=1)
    later.preprocessing = module.preprocessing
    store, _ = stored(later, tmp_path / "later")
    assert {row.tobytes() for row in store.column("inputs")} == {b"too late"} and len(store) == 4
    assert later.preprocessing.ids("late parcel") == [2]
    pairs = Shards(tmp_path / "in", text=["txt", "json:note"], target="json:y")
    store, _ = stored(pairs, tmp_path / "pairs")
    assert store.column("inputs")[1].tobytes() == b"\x1ftoo late"
    assert pairs.preprocessing.ids("late\x1flate") == [1, 2, 1]


def test_samples_that_cannot_be_used_are_rejected(tmp_path):
    members = [("good.png", image(1)), ("good.cls", b"1")]
    members += [("cut.png", image(2)[:-25]), ("cut.cls", b"1")]
    members += [("alone.png", image(3)), ("blank.cls", b"1")]
    members += [("word.png", image(4)), ("word.cls", b"cat")]
    members += [("good.png", image(5)), ("good.cls", b"1")]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in")
    store, _ = stored(module, tmp_path / "store")
    assert len(store) == 1 and module.rows_seen == 6
    assert module.rejected == [
        Rejected("0.tar/cut", None, "a damaged image"),
        Rejected("0.tar/alone", None, "cls is missing"),
        Rejected("0.tar/blank", None, "jpg;jpeg;png is missing"),
        Rejected("0.tar/word", None, "cls cannot be read"),
        Rejected("0.tar/good", None, "an earlier sample has the same name"),
    ]


def test_random_changes_of_inputs_that_are_not_images_are_refused(tmp_path):
    write(tmp_path / "in/0.tar", ("0.npy", array([1.0])), ("0.cls", b"1"))
    module = Shards(tmp_path / "in", inputs="npy", augment=["RandomHorizontalFlip"])
    with pytest.raises(InvalidModuleSettingError, match=r"augment is .*not one image each"):
        module.setup()


def test_arrays_of_another_shape_texts_of_other_encodings_and_objects_are_rejected(tmp_path):
    rows = [array([1, 2]), array([1, 2, 3]), array(np.array([{}], dtype=object)), array([3, 4])]
    labels = [b"a", b"b", b"c", b"\xff"]
    members = []
    for row, (data, label) in enumerate(zip(rows, labels, strict=True)):
        members += [(f"{row}.npy", data), (f"{row}.txt", label)]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in", inputs="npy", target="txt")
    store, _ = stored(module, tmp_path / "store")
    assert store.column("inputs").tolist() == [[1, 2]]
    assert [each.reason for each in module.rejected] == [
        "int64 (3,); expected int64 (2,)",
        "the array cannot be read",
        "txt cannot be read",
    ]


def test_targets_of_another_type_than_most_are_rejected(tmp_path):
    members = []
    for row, label in enumerate(["a", 3, "b", None]):
        members += [(f"{row}.png", image(row)), (f"{row}.json", json.dumps({"y": label}).encode())]
    write(tmp_path / "in/0.tar", *members)
    module = Shards(tmp_path / "in", target="json:y")
    module.setup()
    reasons = ["json:y is int64 (); most are a text", "json:y is missing"]
    assert [each.reason for each in module.rejected] == reasons


def test_new_samples_under_the_names_of_earlier_ones_are_refused(tmp_path):
    def week(number: int, *values: int) -> Shards:
        labels = [(f"{row:03}.cls", b"0") for row in range(len(values))]
        images = [(f"{row:03}.png", image(value)) for row, value in enumerate(values)]
        write(tmp_path / f"week-{number}" / "a.tar", *sorted(labels + images))
        return Shards(tmp_path / f"week-{number}")

    first, _ = stored(week(1, 1, 2, 3), tmp_path / "first")
    module, earlier = week(2, 1, 5, 6, 7), EarlierRows(memory=first)
    module.setup()
    unwanted = [earlier.left_out("train")]
    ingest(module.train_data(), tmp_path / "second", 2, "train", unwanted=unwanted)
    assert list(module.row_names) == ["000", "001", "002", "003"]
    with pytest.raises(ReusedNamesError, match=r"2 rows .* but other content: 001, 002\. Names"):
        check_row_names(module.row_names, earlier)
    check_row_names((), earlier)


def test_damaged_compressed_and_missing_tar_files_are_named(tmp_path):
    with pytest.raises(MissingDataFileError, match="no file matches"):
        Shards(tmp_path).setup()
    write(tmp_path / "0.tar", ("a.png", image(1)), ("a.cls", b"1"))
    whole = (tmp_path / "0.tar").read_bytes()
    for data in (whole[:600], gzip.compress(whole), b"text"):
        (tmp_path / "0.tar").write_bytes(data)
        with pytest.raises(MissingDataFileError, match=r"0\.tar: it is not a complete tar file"):
            Shards(tmp_path).setup()
    write(tmp_path / "0.tar", ("a.cls", b"1"))
    with pytest.raises(AllRowsRejectedError, match=r"0\.tar/a: jpg;jpeg;png is missing"):
        Shards(tmp_path).setup()


def test_a_sample_with_a_member_twice_is_refused(tmp_path):
    write(tmp_path / "0.tar", ("a.cls", b"1"), ("a.cls", b"2"))
    with pytest.raises(MissingDataFileError, match="the sample a has cls twice"):
        Shards(tmp_path).setup()


@pytest.mark.parametrize(
    "settings",
    [
        {"inputs": {}},
        {"inputs": "jpg;"},
        {"target": 3},
        {"id": ""},
        {"inputs": "npy", "text": "txt"},
        {"text": None, "tokenizer": "bpe"},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings):
    with pytest.raises(InvalidModuleSettingError, match=next(iter(settings))):
        Shards(tmp_path, **settings)
