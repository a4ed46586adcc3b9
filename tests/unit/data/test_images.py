"""Image files become stored bytes and batches of one size; what cannot be used is rejected."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from renate_stages.data import Batched, Rejected, StoredDataset, ingest
from renate_stages.data.modules import image_column
from renate_stages.data.modules.images import Images
from renate_stages.data.stored import decoding, preprocessed
from renate_stages.errors import (
    AllRowsRejectedError,
    ChangedPreprocessingError,
    InvalidModuleSettingError,
    MalformedFileError,
    MissingColumnError,
    MissingDataFileError,
    UnequalExamplesError,
    UnusableRowError,
)
from renate_stages.files import write_json
from renate_stages.preprocessing import read_preprocessing
from renate_stages.preprocessing.encoded_images import UnusableImageError, encoded_image
from renate_stages.preprocessing.images import ImagePreprocessing
from renate_stages.tasks.labels import LabelNames
from renate_stages.user.config import UserConfig

NOISE = np.random.default_rng(0)


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, 3) if channels == 3 else (height, width)
    return NOISE.integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path.read_bytes()


@pytest.fixture
def folders(tmp_path):
    folder = tmp_path / "incoming"
    for row in range(4):
        save(folder / "cat" / f"{row}.jpg", pixels(8 + row, 12))
        save(folder / "dog" / "old" / f"{row}.png", pixels(9, 7, channels=1 + 2 * (row % 2)))
    (folder / "dog" / ".DS_Store").write_bytes(b"x")
    return folder


def stored(module, folder: Path):
    module.setup()
    names = LabelNames(module.label_order)
    return ingest(module.train_data(), folder, 1, "train", numbers=names.numbers), names


def test_each_folder_is_a_class_and_bytes_stay_as_they_are(folders, tmp_path):
    module = Images(folders)
    store, names = stored(module, tmp_path / "store")
    assert names.names == ("cat", "dog") and store.column("targets").tolist() == [0] * 4 + [1] * 4
    inputs = store.column("inputs")
    assert inputs.decoder == "image"
    files = [*sorted((folders / "cat").iterdir()), *sorted((folders / "dog/old").iterdir())]
    assert [row.tobytes() for row in inputs] == [path.read_bytes() for path in files]
    assert module.rejected == [] and module.rows_seen == 8


def test_the_path_is_the_id_so_that_renamed_classes_can_be_forgotten(folders, tmp_path):
    from renate_stages.memory.identity import given_id, stored_ids, to_array

    store, _ = stored(Images(folders), tmp_path / "store")
    assert (stored_ids(store)[4] == to_array([given_id("dog/old/0.png")])[0]).all()


def test_other_formats_become_png_without_loss(tmp_path):
    wanted = pixels(5, 6)
    save(tmp_path / "in/a/x.bmp", wanted)
    store, _ = stored(Images(tmp_path / "in"), tmp_path / "store")
    data = store.column("inputs")[0].tobytes()
    assert data.startswith(b"\x89PNG")
    assert (np.array(Image.open(BytesIO(data))) == wanted).all()
    inputs, _ = StoredDataset(store)[0]
    assert (inputs.permute(1, 2, 0).numpy() == wanted).all()


def test_unusable_files_are_rejected_with_a_reason(folders, tmp_path):
    whole = save(folders / "cat" / "cut.png", pixels(40, 40))
    (folders / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folders / "cat" / "empty.jpg").touch()
    (folders / "cat" / "notes.txt").write_text("nothing")
    (folders / "readme.txt").write_text("nothing")
    deep = Image.fromarray(np.full((3, 3), 40_000, np.uint16))
    deep.save(folders / "dog" / "deep.png")
    frames = [Image.fromarray(pixels(3, 3)) for _ in range(2)]
    frames[0].save(folders / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    module = Images(folders)
    store, _ = stored(module, tmp_path / "store")
    assert len(store) == 8 and module.rows_seen == 14
    assert module.rejected == [
        Rejected("readme.txt", None, "it is not in the folder of a class"),
        Rejected("cat/cut.png", None, "a damaged image"),
        Rejected("cat/empty.jpg", None, "the file is empty"),
        Rejected("cat/notes.txt", None, "not an image that Pillow can read"),
        Rejected("dog/deep.png", None, "more than 8 bits for each channel"),
        Rejected("dog/moving.gif", None, "it has 2 frames; expected 1"),
    ]


def deep_png(channels: int, colour_type: int) -> bytes:
    """Return a PNG file with 16 bits for each channel, as Pillow cannot write it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    row = b"\0" + np.full((4, channels), 3000, ">u2").tobytes()
    head = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", compress(row * 4)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_images_with_16_bits_are_refused_also_in_colours_which_pillow_cuts_off(
    channels, colour_type
):
    data = deep_png(channels, colour_type)
    assert Image.open(BytesIO(data)).size == (4, 4)
    with pytest.raises(UnusableImageError, match="more than 8 bits for each channel"):
        encoded_image(data)


def test_bmp_images_with_5_or_6_bits_for_each_channel_are_used():
    head = struct.pack("<2sIHHI", b"BM", 54 + 8, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    assert Image.open(BytesIO(encoded_image(head + bytes(8)))).mode == "RGB"


def test_a_folder_without_a_usable_image_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_text("text")
    with pytest.raises(AllRowsRejectedError, match=r"cat/1\.jpg: not an image"):
        Images(tmp_path).setup()


def test_files_without_folders_are_refused(tmp_path):
    save(tmp_path / "1.png", pixels(3, 3))
    with pytest.raises(MissingDataFileError, match="a folder for each class"):
        Images(tmp_path).setup()


# -- a table of labels -----------------------------------------------------------------------------


def with_table(folder: Path, **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"file": [f"{row}.png" for row in range(4)], **columns})
    for name in frame["file"]:
        save(folder / name, pixels(6, 6))
    return frame


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_gives_labels_and_metadata(tmp_path, kind):
    folder = tmp_path / "in"
    columns = {"label": ["b", "a", "NA", "b"], "key": [7, 8, 9, 10], "shop": ["x", None, "y", "x"]}
    frame = with_table(folder, **columns, day=pd.to_datetime(["2026-01-02"] * 4))
    if kind == "csv":
        frame.to_csv(folder / "labels.csv", index=False)
    else:
        frame.to_parquet(folder / "labels.parquet")
    module = Images(folder, labels=f"labels.{kind}", id="key", source="shop", time="day")
    store, names = stored(module, tmp_path / "store")
    assert names.names == ("NA", "a", "b")
    assert store.column("targets").tolist() == [2, 1, 0, 2]
    assert store.column("meta.source").tolist() == [b"x", b"", b"y", b"x"]
    assert store.column("meta.time").tolist()[0].startswith(b"2026-01-02")


def test_rows_with_an_unusable_weight_are_rejected(tmp_path):
    frame = with_table(tmp_path / "in", label=["a", "b", "a", "b"], sure=[0.5, -1, None, 3])
    frame.to_csv(tmp_path / "in/labels.csv", index=False)
    module = Images(tmp_path / "in", labels="labels.csv", weight="sure")
    store, _ = stored(module, tmp_path / "store")
    assert store.column("meta.weight").tolist() == [0.5, 3]
    assert [each.place for each in module.rejected] == ["labels.csv, row 3", "labels.csv, row 4"]
    assert "sure is no weight, expected 0, or a number" in module.rejected[0].reason
    assert module.rejected[1].reason == "sure is missing"


@pytest.mark.parametrize(
    ("columns", "target", "expected"),
    [
        ({"label": [0.5, 1.0, 2.0, 3.0]}, "label", np.float32([0.5, 1, 2, 3])),
        ({"label": [3, 1, 2, 0]}, "label", np.array([3, 1, 2, 0])),
        ({"label": [3.0, 1.0, None, 0.0]}, "label", np.array([2, 1, 0])),
        ({"a": [1, 0, 1, 0], "b": [True, False, False, True]}, ["a", "b"], None),
        ({"a": [1, 0, 1, 0], "b": [0.5, 1, 2, 3]}, ["a", "b"], None),
    ],
)
def test_targets_may_be_numbers_or_several_columns(tmp_path, columns, target, expected):
    frame = with_table(tmp_path / "in", **columns)
    frame.to_csv(tmp_path / "in/labels.csv", index=False)
    module = Images(tmp_path / "in", labels="labels.csv", target=target)
    store, _ = stored(module, tmp_path / "store")
    if expected is None:
        expected = np.stack([np.asarray(each) for each in columns.values()], axis=1)
        expected = expected.astype(np.int64 if columns["b"][0] is True else np.float32)
    found = store.column("targets")
    assert found.dtype == expected.dtype and (found == expected).all()


@pytest.mark.parametrize(
    ("labels", "task", "names", "targets"),
    [
        ([400125, 400120, 9, 400120], "auto", ("9", "400120", "400125"), [2, 1, 0, 1]),
        ([-3, 2, -3, 2], "classification", ("-3", "2"), [0, 1, 0, 1]),
        ([1, 0, 0, 1], "binary", (), [1, 0, 0, 1]),
        ([True, False, False, True], "binary", (), [1, 0, 0, 1]),
        (["no", "yes", "no", "no"], "binary", ("no", "yes"), [0, 1, 0, 0]),
        (["b ", "b", " a", "c"], "auto", ("a", "b", "c"), [1, 1, 0, 2]),
        (["007", "08", "8", "0.5x"], "auto", ("007", "08", "8", "0.5x"), [0, 1, 2, 3]),
        ([True, False, True, True], "auto", ("False", "True"), [1, 0, 1, 1]),
        ([0.5, 1.5, 2.5, 3], "classification", ("3", "0.5", "1.5", "2.5"), [1, 2, 3, 0]),
        ([3, 1, 2, 0], "regression", (), [3.0, 1.0, 2.0, 0.0]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_whole_numbers_in_a_table_are_names_of_labels(tmp_path, labels, task, names, targets, kind):
    frame = with_table(tmp_path / "in", label=labels)
    if kind == "csv":
        frame.to_csv(tmp_path / "in/labels.csv", index=False)
    else:
        frame.to_parquet(tmp_path / "in/labels.parquet")
    module = Images(tmp_path / "in", labels=f"labels.{kind}", task=task)
    store, found = stored(module, tmp_path / "store")
    assert found.names == names
    assert store.column("targets").tolist() == targets
    assert store.column("targets").dtype == (np.float32 if task == "regression" else np.int64)


def test_rows_whose_target_is_no_number_are_rejected_in_a_regression(tmp_path):
    frame = with_table(tmp_path / "in", label=["0.5", "n/a", "2", "inf"])
    frame.to_csv(tmp_path / "in/labels.csv", index=False)
    module = Images(tmp_path / "in", labels="labels.csv", task="regression")
    store, _ = stored(module, tmp_path / "store")
    assert store.column("targets").tolist() == [0.5, 2.0]
    assert [each.reason for each in module.rejected] == [
        "label is not a number",
        "label is not a finite number of 32 bits",
    ]


def test_a_file_that_is_listed_again_is_rejected_unless_rows_have_ids(tmp_path):
    frame = with_table(tmp_path / "in", label=["a", "b", "a", "b"], key=[1, 2, 3, 4])
    frame.loc[2, "file"] = frame.loc[0, "file"]
    frame.loc[3, "file"] = f"./{frame.loc[0, 'file']}"
    frame.to_csv(tmp_path / "in/labels.csv", index=False)
    module = Images(tmp_path / "in", labels="labels.csv")
    store, _ = stored(module, tmp_path / "store")
    assert len(store) == 2 and list(module.row_names) == frame["file"].tolist()[:2]
    assert module.rejected == [Rejected("labels.csv", n, "file is listed before") for n in (4, 5)]
    module = Images(tmp_path / "in", labels="labels.csv", id="key")
    store, _ = stored(module, tmp_path / "with-ids")
    assert len(store) == 4 and module.row_names == () and not module.rejected


def test_blank_lines_of_a_table_count_as_lines_but_not_as_rows(tmp_path):
    frame = with_table(tmp_path / "in", label=["a", "b", None, "b"])
    head, *rows = frame.to_csv(index=False).splitlines()
    lines = [head, *rows[:1], "", "", *rows[1:], ""]
    (tmp_path / "in/labels.csv").write_text("\n".join(lines))
    module = Images(tmp_path / "in", labels="labels.csv")
    module.setup()
    assert module.rejected == [Rejected("labels.csv", 6, "label is missing")]
    assert module.rows_seen == 4


def test_rows_without_a_label_or_a_file_are_rejected_with_their_line(tmp_path):
    frame = with_table(tmp_path / "in", label=["a", None, "b", "c"])
    frame.loc[2, "file"], frame.loc[3, "file"] = "../other.png", "gone.png"
    frame.to_csv(tmp_path / "in/labels.csv", index=False)
    module = Images(tmp_path / "in", labels="labels.csv")
    store, _ = stored(module, tmp_path / "store")
    assert len(store) == 1 and module.rows_seen == 4
    assert module.rejected == [
        Rejected("labels.csv", 3, "label is missing"),
        Rejected("labels.csv", 4, "file is outside the folder of the data"),
        Rejected("gone.png", None, "the file does not exist"),
    ]


def test_missing_tables_and_columns_are_named(tmp_path):
    with pytest.raises(MissingDataFileError, match=r"labels\.csv: the file does not exist"):
        Images(tmp_path, labels="labels.csv").setup()
    with_table(tmp_path, lable=list("abcd")).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(MissingColumnError, match=r"no column 'label'.*lable"):
        Images(tmp_path, labels="labels.csv").setup()
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,b\n")
    with pytest.raises(MissingDataFileError, match="cannot be read"):
        Images(tmp_path, labels="labels.csv").setup()


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 0},
        {"size": [3, 4, 5]},
        {"channels": 4},
        {"normalize": "imagnet"},
        {"normalize": "imagenet", "channels": 1},
        {"normalize": {"mean": [0.5], "std": [1.0, 1.0, 1.0]}},
        {"normalize": {"mean": [0.5] * 3, "std": [1.0, 0.0, 1.0]}},
        {"source": "shop"},
        {"target": []},
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings):
    name = next(iter(settings))
    with pytest.raises(InvalidModuleSettingError, match=f"images: {name} is "):
        Images(tmp_path, **settings)


# -- preprocessing ---------------------------------------------------------------------------------


def batch_of(store, preprocessing, rows=None):
    dataset = StoredDataset(store, transform=preprocessed(preprocessing))
    return dataset.__getitems__(range(len(store)) if rows is None else rows)[0]


def test_images_of_several_sizes_and_modes_make_one_normalised_batch(folders, tmp_path):
    store, _ = stored(module := Images(folders, size=6), tmp_path / "store")
    module.preprocessing.fit(store)
    batch = batch_of(store, module.preprocessing)
    assert batch.shape == (8, 3, 6, 6) and batch.dtype == torch.float32
    means, deviations = batch.mean(dim=(0, 2, 3)), batch.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(means, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviations, torch.ones(3), atol=1e-5, rtol=0)


def test_transforms_of_the_user_get_images_of_one_size(folders, tmp_path):
    store, _ = stored(module := Images(folders, size=6, normalize="none"), tmp_path / "store")
    plain = batch_of(store, module.preprocessing)
    for then in (Batched(lambda batch: batch.flip(-1)), lambda image: image.flip(-1)):
        dataset = StoredDataset(store, transform=preprocessed(module.preprocessing, then))
        assert torch.equal(dataset.__getitems__(range(8))[0], plain.flip(-1))


def test_resizing_equals_pillow_on_the_shorter_side_and_the_centre():
    array = pixels(20, 40)
    found = ImagePreprocessing(size=10).transform_example(torch.from_numpy(array).permute(2, 0, 1))
    resized = Image.fromarray(array).resize((20, 10), Image.Resampling.BILINEAR)
    assert (found.permute(1, 2, 0).numpy() == np.array(resized)[:, 5:15]).all()


def test_size_may_be_height_and_width():
    image = torch.from_numpy(pixels(31, 17, channels=1))[None]
    assert ImagePreprocessing(size=[5, 9], channels=1).transform_example(image).shape == (1, 5, 9)


def test_images_of_several_sizes_without_a_size_cannot_be_stacked(folders, tmp_path):
    store, _ = stored(module := Images(folders), tmp_path / "store")
    with pytest.raises(UnequalExamplesError):
        batch_of(store, module.preprocessing)


def test_colours_become_grey_as_pillow_converts_them():
    array = pixels(4, 5)
    found = ImagePreprocessing(channels=1).transform_example(
        torch.from_numpy(array).permute(2, 0, 1)
    )
    assert (found[0].numpy() == np.array(Image.fromarray(array).convert("L"))).all()


def test_given_statistics_normalise_by_channel():
    stored_batch = torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)
    found = ImagePreprocessing(normalize="imagenet").transform(stored_batch)
    expected = (0.2 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found[1, :, 2, 2], expected, rtol=1e-5)


def test_statistics_are_those_of_the_first_update(folders, tmp_path):
    store, _ = stored(module := Images(folders, size=6), tmp_path / "store")
    module.preprocessing.fit(store)
    mean = module.preprocessing.mean
    save(tmp_path / "next/cat/white.png", np.full((6, 6, 3), 255, np.uint8))
    later = Images(tmp_path / "next", size=6)
    later.preprocessing = module.preprocessing
    store, _ = stored(later, tmp_path / "second")
    later.preprocessing.fit(store)
    assert later.preprocessing is module.preprocessing and later.preprocessing.mean == mean


def test_images_are_decoded_once_unless_they_change(folders, tmp_path, monkeypatch):
    Image.fromarray(pixels(4, 4)).save(folders / "cat" / "9.bmp")  # is converted each time
    decoded = []

    def counted(image):
        decoded.append(image)
        return encoded_image(image)

    monkeypatch.setattr(image_column, "encoded_image", counted)
    module = Images(folders)
    module.setup()
    assert len(decoded) == 9
    files = {path.relative_to(folders).as_posix(): path for path in folders.rglob("*.*g")}
    changed = save(folders / "cat" / "3.jpg", pixels(8, 8))
    decoded.clear()
    store = ingest(
        module.train_data(), tmp_path / "store", 1, "train", numbers=LabelNames().numbers
    )
    assert len(decoded) == 2 and changed in decoded
    expected = {path.read_bytes() for name, path in files.items() if not path.name.startswith(".")}
    found = {row.tobytes() for row in store.column("inputs")}
    assert expected < found and len(found) == 9


def turned(path: Path, array: np.ndarray, orientation: int) -> Path:
    """Save an image whose EXIF data says that it is turned; as JPEG, its pixels change a little."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(
        path, exif=exif, **({"lossless": True} if "webp" in path.name else {})
    )
    return path


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_images_are_turned_as_their_exif_data_says_in_training_and_when_serving(tmp_path, ending):
    array = pixels(4, 7)
    files = [turned(tmp_path / f"in/a/{n}.{ending}", array, n) for n in range(1, 9)]
    store, _ = stored(module := Images(tmp_path / "in", normalize="none"), tmp_path / "store")
    served = module.preprocessing.encode([*files, *map(Image.open, files)])
    for row, path in enumerate(files):
        upright = ImageOps.exif_transpose(Image.open(path))
        expected = torch.from_numpy(np.array(upright)).permute(2, 0, 1) / 255
        assert expected.shape == (3, 4, 7) if row < 4 else (3, 7, 4)
        assert torch.equal(batch_of(store, module.preprocessing, [row])[0], expected)
        kept = StoredDataset(store, None, decoding(preprocessed(module.preprocessing)))[row][0]
        assert torch.equal(kept / 255, expected)  # what strategies of Avalanche begin with
        for other in (row, row + 8):
            found = module.preprocessing.decode(served[other], "image") / 255
            if ending != "jpg" or other == row:
                assert torch.equal(found, expected)
            else:  # Image.open decodes as we do
                torch.testing.assert_close(found, expected, atol=2 / 255, rtol=0)
    if ending in ("jpg", "png"):
        assert [row.tobytes() for row in store.column("inputs")] == [f.read_bytes() for f in files]


def test_statistics_are_those_of_turned_images(tmp_path):
    array = np.zeros((4, 8, 3), np.uint8)
    array[:, :4] = 255  # after turning, the upper half is white
    turned(tmp_path / "in/a/0.png", array, 6)
    store, _ = stored(module := Images(tmp_path / "in", size=[4, 4]), tmp_path / "store")
    module.preprocessing.fit(store)
    batch = batch_of(store, module.preprocessing)
    torch.testing.assert_close(batch.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert (batch[0, 0].diff(dim=1) == 0).all() and batch[0, 0, 0, 0] > batch[0, 0, -1, 0]


def test_damaged_exif_data_counts_as_none(tmp_path):
    path = turned(tmp_path / "in/a/0.jpg", pixels(4, 7), 6)
    data = path.read_bytes().replace(b"Exif\0\0MM\0*", b"Exif\0\0XX\0*")
    assert data != path.read_bytes()
    path.write_bytes(data)
    store, _ = stored(module := Images(tmp_path / "in"), tmp_path / "store")
    assert batch_of(store, module.preprocessing).shape == (1, 3, 4, 7)


def test_states_of_old_releases_keep_reading_images_as_they_are_stored(tmp_path):
    turned(tmp_path / "in/a/0.png", array := pixels(4, 7), 6)
    old = ImagePreprocessing(normalize="none")
    old.write(tmp_path)
    file = tmp_path / "preprocessing" / "preprocessing.json"
    content = {"kind": "images", "built": None, "schema": 1, **old.content()}
    del content["upright"], content["augment"]
    file.unlink()
    write_json(file, content)
    module = Images(tmp_path / "in", normalize="none")
    module.preprocessing = read_preprocessing(tmp_path)
    store, _ = stored(module, tmp_path / "store")
    expected = torch.from_numpy(array).permute(2, 0, 1) / 255
    assert torch.equal(batch_of(store, module.preprocessing)[0], expected)
    assert module.preprocessing.content()["upright"] is False
    (tmp_path / "later").mkdir()
    module.preprocessing.write(tmp_path / "later")
    assert read_preprocessing(tmp_path / "later").upright is False


AUGMENT = ["RandomVerticalFlip", {"name": "RandomCrop", "padding": [1, 2]}]


def test_random_changes_reach_training_and_remembered_examples_alone(folders, tmp_path):
    module = Images(folders, size=6, augment=AUGMENT)
    store, _ = stored(module, tmp_path / "store")
    module.preprocessing.fit(store)
    plain = Images(folders, size=6)
    plain.preprocessing = ImagePreprocessing(size=6)
    plain.preprocessing.fit(store)
    user = UserConfig(Path("renate_config.py"), {"model_fn": lambda: None})
    user.preprocessing = module.preprocessing
    transforms = user.transforms({})
    expected = batch_of(store, plain.preprocessing)
    for transform in (transforms.test[0], user.test_transforms({})[0]):
        inputs, _ = StoredDataset(store, None, transform).__getitems__(range(8))
        assert torch.equal(inputs, expected)
    for transform in (transforms.train[0], transforms.memory[0]):
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(StoredDataset(store, None, transform).__getitems__(range(8))[0])
        assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
        assert found[0].shape == expected.shape
        black = module.preprocessing.transform(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
        for channel in range(3):  # flips and crops move pixels, and add black ones
            values = torch.cat([expected[:, channel].flatten(), black[0, channel].flatten()])
            assert torch.isin(found[0][:, channel], values).all()


def test_random_changes_may_differ_in_each_update(folders, tmp_path):
    first = Images(folders, size=6, augment=AUGMENT)
    first.setup()
    first.preprocessing.write(tmp_path)
    for augment in (["RandomHorizontalFlip"], None):
        later = Images(folders, size=6, augment=augment)
        later.preprocessing = read_preprocessing(tmp_path)
        assert later.preprocessing.content()["augment"] == [
            {"name": "RandomVerticalFlip"},
            {"name": "RandomCrop", "padding": [1, 2]},
        ]
        later.setup()
        settings = [{"name": each} for each in augment or ()]
        assert later.preprocessing.content()["augment"] == settings


@pytest.mark.parametrize(
    "changed", [{"size": 7}, {"channels": 1}, {"normalize": "imagenet"}, {"normalize": "none"}]
)
def test_changed_settings_are_refused(folders, changed):
    module = Images(folders, **{"size": 6, **changed})
    module.preprocessing = ImagePreprocessing(size=6)
    with pytest.raises(ChangedPreprocessingError, match=next(iter(changed))):
        module.setup()


def test_preprocessing_is_kept_as_json(folders, tmp_path):
    store, _ = stored(module := Images(folders, size=[5, 6]), tmp_path / "store")
    module.preprocessing.fit(store)
    module.preprocessing.write(tmp_path)
    found = read_preprocessing(tmp_path)
    assert (
        isinstance(found, ImagePreprocessing) and found.content() == module.preprocessing.content()
    )
    assert found.sizes() == {"num_channels": 3, "num_inputs": 90}
    assert module.preprocessing.difference_from(found) is None
    assert torch.equal(batch_of(store, found), batch_of(store, module.preprocessing))


@pytest.mark.parametrize(
    "change",
    [
        {"size": "6"},
        {"channels": 2},
        {"mean": [0.1]},
        {"std": None},
        {"normalize": 3},
        {"upright": "yes"},
        {"augment": ["Flip"]},
        {"augment": 3},
    ],
)
def test_malformed_files_are_refused(tmp_path, change):
    preprocessing = ImagePreprocessing(size=6, normalize="none")
    preprocessing.write(tmp_path)
    file = tmp_path / "preprocessing" / "preprocessing.json"
    content = {"kind": "images", "built": None, "schema": 1, **preprocessing.content(), **change}
    file.unlink()
    write_json(file, content)
    with pytest.raises(MalformedFileError):
        read_preprocessing(tmp_path)


def test_raw_images_are_encoded_as_the_module_stores_them(folders, tmp_path):
    path = folders / "cat" / "0.jpg"
    array = pixels(3, 4)
    rows = [path, str(path), path.read_bytes(), Image.fromarray(array), array, array[:, :, 0]]
    found = ImagePreprocessing().encode(rows)
    assert [row.tobytes() for row in found][:3] == [path.read_bytes()] * 3
    for row, expected in ((3, array), (4, array), (5, array[:, :, 0])):
        assert (np.array(Image.open(BytesIO(found[row].tobytes()))) == expected).all()


def test_truncated_pil_image_is_an_unusable_row(tmp_path):
    data = save(tmp_path / "0.png", pixels(40, 40))
    with pytest.raises(UnusableRowError, match="row 0: a damaged image"):
        ImagePreprocessing().encode([Image.open(BytesIO(data[: len(data) // 2]))])


@pytest.mark.parametrize("image", [b"text", "gone.jpg", np.zeros((2, 2)), 5, b""])
def test_unusable_raw_images_name_their_row(image):
    with pytest.raises(UnusableRowError, match="row 1: "):
        ImagePreprocessing().encode([pixels(2, 2), image])
