"""Texts, encoded images and metadata, from a user's dataset to a batch."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from renate_stages import errors
from renate_stages.data import (
    Batch,
    ColumnDataset,
    ConcatStored,
    StoredDataset,
    concatenate,
    ingest,
    row_block,
)
from renate_stages.memory.identity import IdSet, given_id, is_hash, printed, to_array


def encoded(width: int, height: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    pixels = np.arange(width * height * len(mode), dtype=np.uint8)
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    stream = BytesIO()
    Image.fromarray(pixels.reshape(shape), mode if mode != "L" else None).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def texts(tmp_path):
    """Token ids as lists, with their mask, of lengths 2, 4 and 0."""
    items = [
        ({"ids": ids, "mask": [1] * len(ids)}, label)
        for ids, label in (([7, 8], 0), ([1, 2, 3, 4], 1), ([], 0))
    ]
    return ingest(items, tmp_path / "s", 1, "train", ragged=("inputs.ids", "inputs.mask"))


def test_texts_are_stored_unpadded_and_padded_in_a_batch(texts):
    assert str(texts.spec.fields["inputs.ids"]) == "int64 (*, )"
    dataset = StoredDataset(texts)
    assert dataset[1][0]["ids"].tolist() == [1, 2, 3, 4]
    inputs, targets = dataset.__getitems__([2, 0, 1])
    assert inputs["ids"].tolist() == [[0, 0, 0, 0], [7, 8, 0, 0], [1, 2, 3, 4]]
    assert inputs["mask"].sum(1).tolist() == [0, 2, 4] and targets.tolist() == [0, 0, 1]
    inputs, _ = dataset.__getitems__([0])
    assert inputs["ids"].tolist() == [[7, 8]]


def test_batches_of_different_lengths_are_joined_for_replay(texts):
    dataset = StoredDataset(texts)
    joined, targets = concatenate([dataset.__getitems__([0]), dataset.__getitems__([1, 2])])
    assert joined["ids"].tolist() == [[7, 8, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]]
    inputs, _ = ConcatStored([dataset, dataset]).__getitems__([4, 0])
    assert inputs["ids"].tolist() == [[1, 2, 3, 4], [7, 8, 0, 0]]
    assert len(targets) == 3


@pytest.mark.parametrize(("kind", "mode", "channels"), [("PNG", "RGB", 3), ("PNG", "L", 1)])
def test_images_are_stored_encoded_and_decoded_on_reading(tmp_path, kind, mode, channels):
    files = [encoded(4, 3, kind, mode), encoded(4, 3, kind, mode), encoded(5, 3, kind, mode)]
    store = ingest([(data, 0) for data in files], tmp_path / "s", 1, "train")
    dataset = StoredDataset(store)
    image, _ = dataset[0]
    expected = np.arange(4 * 3 * channels).reshape(3, 4, channels).transpose(2, 0, 1)
    assert (image.dtype, image.tolist()) == (torch.uint8, expected.tolist())
    assert dataset.__getitems__([0, 1])[0].shape == (2, channels, 3, 4)
    assert store.nbytes == sum(map(len, files)) + 3 * 8
    with pytest.raises(errors.UnequalExamplesError, match=r"(?s)\(., 3, 5\).*resize or crop"):
        dataset.__getitems__([0, 2])
    cropped = StoredDataset(store, transform=lambda image: image[:, :2, :2])
    assert cropped.__getitems__([0, 2])[0].shape == (2, channels, 2, 2)


def test_jpeg_image_is_decoded(tmp_path):
    store = ingest([(encoded(8, 8, "JPEG"), 1)], tmp_path / "s", 1, "train")
    assert StoredDataset(store)[0][0].shape == (3, 8, 8)


@pytest.mark.parametrize("cut", [20, 50])
def test_truncated_image_is_reported_as_undecodable(tmp_path, cut):
    store = ingest([(encoded(8, 8)[:cut], 1)], tmp_path / "s", 1, "train")
    with pytest.raises(errors.UndecodableError, match="cannot be decoded as image"):
        StoredDataset(store)[0]


def test_decompression_bomb_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    store = ingest([(encoded(8, 8), 1)], tmp_path / "s", 1, "train")
    with pytest.raises(errors.UndecodableError, match="decompression bomb"):
        StoredDataset(store)[0]


def test_metadata_is_stored_and_ids_are_hashed(tmp_path):
    items = [
        (torch.zeros(2), 0, {"id": "customer-17", "source": "eu", "price": 0.5, "paid": True}),
        (torch.ones(2), 1, {"id": 18, "source": "us", "price": 1.5, "paid": False}),
    ]
    store = ingest(items, tmp_path / "s", 7, "train")
    assert store.metadata("source").tolist() == [b"eu", b"us"]
    assert store.metadata("price").tolist() == [0.5, 1.5]
    assert store.metadata("paid").tolist() == [True, False]
    assert store.metadata("update").tolist() == [7, 7]
    ids = store.metadata("id")
    assert ids.tolist() == to_array([given_id("customer-17"), given_id("18")]).tolist()
    assert all(map(is_hash, printed(ids)))
    assert IdSet.of(["18", "none"]).among(ids).tolist() == [False, True]
    assert IdSet.of(printed(ids)) == IdSet.of(["customer-17", "18"])
    raw = b"".join(file.read_bytes() for file in store.files())
    assert b"customer-17" not in raw


def test_examples_without_an_id_are_identified_by_their_content(tmp_path):
    values = torch.arange(6.0).reshape(3, 2)
    data = TensorDataset(torch.cat([values, values[:1]]), torch.tensor([0, 1, 0, 0]))
    ids = printed(ingest(data, tmp_path / "a", 1, "train").metadata("id"))
    assert ids[0] == ids[3] and len(set(ids)) == 3
    items = [(value, int(label)) for value, label in zip(*data[:4], strict=True)]
    assert printed(ingest(items, tmp_path / "b", 9, "test").metadata("id")) == ids
    other = TensorDataset(data.tensors[0].int(), data.tensors[1])
    assert not set(ids) & set(printed(ingest(other, tmp_path / "c", 1, "train").metadata("id")))


def test_texts_with_equal_tokens_and_different_boundaries_have_different_ids(tmp_path):
    items = [({"a": [1], "b": [2, 3]}, 0), ({"a": [1, 2], "b": [3]}, 0)]
    store = ingest(items, tmp_path / "s", 1, "train", ragged=("inputs.a", "inputs.b"))
    assert len(set(printed(store.metadata("id")))) == 2


GOOD = (torch.zeros(2), 0, {"source": "eu"})


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([GOOD, (torch.zeros(2), 0)], errors.ItemMismatchError, "metadata source is missing"),
        ([GOOD[:2], GOOD], errors.ItemMismatchError, "metadata source is present"),
        ([(*GOOD[:2], {"source": "e" * 33})], errors.InvalidMetadataError, "at most 32 bytes"),
        (
            [(*GOOD[:2], {"source": None})],
            errors.InvalidMetadataError,
            "is None; expected a 64-bit number",
        ),
        ([(*GOOD[:2], {"update": 3})], errors.InvalidMetadataError, "the pipeline sets this one"),
        ([(*GOOD[:2], {"id": 0.5})], errors.InvalidMetadataError, "a string or an integer"),
        ([(*GOOD[:2], {"../x": 1})], errors.ExampleStructureError, "file names contain them"),
        ([(*GOOD[:2], {"n": 1}), (*GOOD[:2], {"n": 1.5})], errors.ItemMismatchError, "float64"),
        ([(b"no image", 1)], errors.UnstorableValueError, "bytes of a JPEG or PNG"),
    ],
)
def test_invalid_metadata_is_reported(tmp_path, items, error, message):
    with pytest.raises(error, match=message):
        ingest(items, tmp_path / "s", 1, "val")


WEIGHTS = [1, 0.5, 0, np.float32(2), torch.tensor(3), 7.0]


@pytest.mark.parametrize("inputs", [1.5, torch.zeros(2)], ids=["single values", "tensors"])
@pytest.mark.parametrize("weights", [WEIGHTS, [1.0, 0.5, 0.0, 2.0, 3.0, 7.0]])
def test_weights_are_stored_with_64_bits_and_read_with_batches(tmp_path, inputs, weights):
    items = [(inputs, 1, {"weight": each}) for each in weights]
    store = ingest(items, tmp_path / "s", 1, "train")
    assert store.metadata("weight").dtype == np.float64
    assert store.metadata("weight").tolist() == [1, 0.5, 0, 2, 3, 7]
    plain = ingest([each[:2] for each in items], tmp_path / "p", 1, "train")
    both = ConcatStored([StoredDataset(plain), StoredDataset(store, np.array([5, 1]))])
    assert StoredDataset(plain).weights([0]) is None and both.is_weighted
    assert Batch.of(both, np.array([7, 0, 6])).weights.tolist() == [0.5, 1, 7]
    assert not any("weight" in file.name for file in plain.files())


BAD_WEIGHTS = [-1.0, float("nan"), float("inf"), 1e-30, 1e30]


@pytest.mark.parametrize("form", ["single values", "tensors", "columns"])
@pytest.mark.parametrize("weight", BAD_WEIGHTS)
def test_numbers_that_are_no_weights_are_refused_by_row(tmp_path, form, weight):
    weights = [1.0, 2.0, 1.0, weight]
    data = [(2.5 if form == "single values" else torch.zeros(2), 1, {"weight": w}) for w in weights]
    if form == "columns":
        data = ColumnDataset(torch.zeros(4, 2), torch.ones(4), {"weight": torch.tensor(weights)})
    message = r"train data, item 3: metadata 'weight' is .*; expected 0, or a number from 1e-20"
    with pytest.raises(errors.InvalidMetadataError, match=message):
        ingest(data, tmp_path / "s", 1, "train")


@pytest.mark.parametrize("weight", [True, "1", None])
def test_values_that_are_no_numbers_are_no_weights(tmp_path, weight):
    with pytest.raises(errors.InvalidMetadataError, match="item 0: metadata 'weight'"):
        ingest([(torch.zeros(2), 1, {"weight": weight})], tmp_path / "s", 1, "train")


def test_unknown_ragged_field_is_reported(tmp_path):
    with pytest.raises(errors.UnknownFieldError, match="no 'input', did you mean 'inputs'"):
        ingest([(torch.zeros(2), 0)], tmp_path / "s", 1, "train", ragged=("input",))


@pytest.mark.parametrize(
    ("rows", "dtype", "shape"),
    [
        ([[], [1, 2], [], [3]], np.int64, ()),
        ([[], [0.5], [1.5, 2.0]], np.float32, ()),
        ([[], [[1, 2, 3], [4, 5, 6]], []], np.int64, (3,)),
        ([[], []], np.float32, ()),
    ],
    ids=["integers", "floats", "points", "all empty"],
)
def test_empty_first_item_does_not_decide_the_dtype(tmp_path, rows, dtype, shape):
    store = ingest([(row, 0) for row in rows], tmp_path / "s", 1, "train", ragged=("inputs",))
    assert store.spec is not None
    field = store.spec.fields["inputs"]
    assert (field.dtype, field.shape, field.ragged) == (dtype, shape, True)
    column = store.column("inputs")
    assert [column[n].tolist() for n in range(len(rows))] == rows


def test_long_run_of_empty_first_items_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(row_block, "BLOCK_ROWS", 2)
    items = [([], 0)] * 5 + [([7], 1)] * 5
    store = ingest(items, tmp_path / "s", 1, "train", ragged=("inputs",))
    assert store.column("inputs")[5].tolist() == [7] and len(store) == 10


def test_row_that_differs_from_the_first_known_dtype_is_named(tmp_path):
    items = [([], 0), ([1, 2], 0), ([1.5], 0)]
    with pytest.raises(errors.ItemMismatchError, match="item 2: inputs is float32"):
        ingest(items, tmp_path / "s", 1, "train", ragged=("inputs",))
    rows = [((1, 2.5), 0), ((1.5, 2.0), 0)]
    with pytest.raises(errors.ItemMismatchError, match=r"item 1: inputs\.0 is float32"):
        ingest(rows, tmp_path / "t", 1, "train")
