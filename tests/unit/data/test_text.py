"""The data module `text` reads CSV, lines of JSON and Parquet, and rejects rows by file and line."""

from __future__ import annotations

import csv
import inspect
import json
import re
import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from renate_stages import errors
from renate_stages.data import Batched, StoredDataset, ingest
from renate_stages.data.modules.registry import module_class
from renate_stages.data.modules.text import Text
from renate_stages.data.splits import sort_keys
from renate_stages.memory import ExampleStore
from renate_stages.memory.identity import given_id, to_array
from renate_stages.memory.spec import IGNORED
from renate_stages.preprocessing.text import TextPreprocessing
from renate_stages.preprocessing.words import SEPARATOR
from renate_stages.tasks.labels import LabelNames
from renate_stages.user.named import OF_PIPELINE

ROWS = [("late parcel", "b"), ("", "a"), ('naïve, "quoted"\nline', "b")]


def write_csv(file, rows, header=("text", "label"), **arguments) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, **arguments).writerows([header, *rows])


def write_json(file, rows, header=("text", "label")) -> None:
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    file.write_text("\n".join(lines) + "\n")


def write_parquet(file, rows, header=("text", "label")) -> None:
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), file)


WRITERS = {"csv": write_csv, "jsonl": write_json, "ndjson": write_json, "parquet": write_parquet}


def read(folder, **arguments) -> Text:
    module = Text(folder, **arguments)
    module.setup()
    return module


def texts_of(module) -> list[str]:
    data = module.train_data()
    return [data[row][0].tobytes().decode() for row in range(len(data))]


def targets_of(module) -> list:
    data = module.train_data()
    return [data[row][1] for row in range(len(data))]


def stored(module, path) -> ExampleStore:
    names, ragged = LabelNames(module.label_order), module.ragged_fields
    return ingest(module.train_data(), path, 1, "train", ragged=ragged, numbers=names.numbers)


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_of_each_kind_give_the_same_rows(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"a.{suffix}", ROWS)
    module = read(tmp_path)
    assert texts_of(module) == [text for text, _ in ROWS]
    assert targets_of(module) == ["b", "a", "b"]
    assert module.rows_seen == 3 and module.rejected == [] and module.label_order == ("a", "b")


def test_files_are_read_in_order_of_their_names_with_those_of_folders(tmp_path):
    (tmp_path / "b").mkdir()
    write_json(tmp_path / "c.json", [("third", "x")])
    write_parquet(tmp_path / "b" / "1.parquet", [("second", "x")])
    write_csv(tmp_path / "a.csv", [("first", "x")])
    write_csv(tmp_path / "d.tsv", [("fourth", "x")], delimiter="\t")
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".hidden.xlsx").write_text("hidden")
    assert texts_of(read(tmp_path)) == ["first", "second", "third", "fourth"]


def test_delimiter_and_byte_order_mark(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext;label\r\na, b;x\r\n")
    assert texts_of(read(tmp_path, delimiter=";")) == ["a, b"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_long_texts_are_read_whole(tmp_path, suffix):
    long = "word " * 60_000  # more than a cell may have by default
    WRITERS[suffix](tmp_path / f"a.{suffix}", [(long, "x")])
    assert texts_of(read(tmp_path)) == [long]


@pytest.mark.parametrize("name", ["a.txt", "a.csv.gz", "b.xlsx", "c.feather"])
def test_other_files_are_refused(tmp_path, name):
    write_csv(tmp_path / "a.csv", ROWS)
    (tmp_path / name).write_text("text")
    with pytest.raises(errors.TextFilesError, match=f"found {name}, which cannot be read"):
        read(tmp_path)


def test_folder_without_texts_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("notes")
    with pytest.raises(errors.TextFilesError, match="found no file with texts"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_renamed_column_is_named_with_what_the_file_has(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"a.{suffix}", ROWS, header=("texts", "label"))
    message = f"a.{suffix} has no column 'text', did you mean 'texts'"
    with pytest.raises(errors.TextColumnError, match=message):
        read(tmp_path)
    assert texts_of(read(tmp_path, text="texts")) == [text for text, _ in ROWS]


def test_column_that_a_csv_file_has_twice_is_refused(tmp_path):
    write_csv(tmp_path / "a.csv", [("a", "b", "c")], header=("text", "text", "label"))
    with pytest.raises(errors.MalformedFileError, match="2 columns are called 'text'"):
        read(tmp_path)


def test_a_missing_delimiter_is_proposed(tmp_path):
    (tmp_path / "a.csv").write_text("text;label\na;b\n")
    with pytest.raises(errors.TextColumnError, match=r"set delimiter: ';' in data\.module"):
        read(tmp_path)
    module = read(tmp_path, delimiter=";")
    assert len(module.train_data()) == 1


@pytest.mark.parametrize("first", ["{", "["])
def test_json_that_is_not_one_object_on_each_line_is_refused(tmp_path, first):
    (tmp_path / "tokenizer.json").write_text(f'{first}\n  "version": "1.0"\n')
    with pytest.raises(errors.MalformedFileError, match="expected one object"):
        read(tmp_path)


# -- damaged files and rows -----------------------------------------------------------------------


def test_rows_of_csv_are_rejected_with_their_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        b'text,label\n"two\nlines",a\ncaf\xe9,a\nshort\n\nlong,a,b\nempty,\nok,a\nok,\xe9\n'
    )
    module = read(tmp_path)
    assert texts_of(module) == ["two\nlines", "ok"] and module.rows_seen == 7
    assert [tuple(each) for each in module.rejected] == [
        ("a.csv", 4, "text is not UTF-8"),
        ("a.csv", 5, "the row does not have 2 cells, as line 1 has"),
        ("a.csv", 7, "the row does not have 2 cells, as line 1 has"),
        ("a.csv", 8, "label is missing"),
        ("a.csv", 10, "label is not UTF-8"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"text": "a", "label": "b"', "the line is not valid JSON"),
        (b'"text": "a", "label": "b"}', "the line is not valid JSON"),
        (b'{"text": "caf\xe9", "label": "b"}', "the line is not UTF-8"),
        (b'["a", "b"]', "the line is not a JSON object"),
        (b'{"label": "b"}', "text is missing"),
        (b'{"text": null, "label": "b"}', "text is missing"),
        (b'{"text": 5, "label": "b"}', "text is not a text"),
        (b'{"text": "\\ud83d", "label": "b"}', "text is not UTF-8"),
        (b'{"text": "a"}', "label is missing"),
        (b'{"text": "a", "label": NaN}', "label is missing"),
        (b'{"text": "a", "label": ["b"]}', "label is neither a text nor a number"),
        (
            b'{"text": "a", "label": "b\\nc"}',
            "label is not a printable name of at most 200 characters",
        ),
        (b'{"text": "a", "label": "' + b"b" * 201 + b'"}', "label is not a printable name"),
        (b"[" * 100_000, "the line is not valid JSON"),
        (b"9" * 5000, "the line is not valid JSON"),
    ],
)
def test_rows_of_json_are_rejected_with_their_line(tmp_path, row, reason):
    good = b'{"text": "ok", "label": "b"}\n'
    (tmp_path / "week.jsonl").write_bytes(good + b"\n" + row + b"\n" + good)
    module = read(tmp_path)
    assert texts_of(module) == ["ok", "ok"] and module.rows_seen == 3
    (found,) = module.rejected
    assert found[:2] == ("week.jsonl", 3) and found.reason.startswith(reason)


def test_rows_of_parquet_are_rejected_with_their_number(tmp_path):
    raw = pa.array([b"ok", b"caf\xe9", None, b"ok"], pa.binary()).view(pa.string())
    table = pa.table({"text": raw, "label": pa.array([1, 2, 3, None])})
    pq.write_table(table, tmp_path / "a.parquet")
    module = read(tmp_path)
    assert texts_of(module) == ["ok"] and targets_of(module) == ["1"]
    assert [(each.row, each.reason) for each in module.rejected] == [
        (2, "text is not UTF-8"),
        (3, "text is missing"),
        (4, "label is missing"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b'text,label\nok,a\n"open,b\nmore,c\n', "line 3: unexpected end of data"),
        ("a.csv", b'text,label\n"a"b,c\n', "line 2:"),
        (
            "a.csv",
            "text,label\na,b\n".encode("utf-16"),
            "line 1: the names of columns are not UTF-8",
        ),
        ("a.json", b'[{"text": "a"}]', r"begins with '\['"),
        ("a.parquet", b"PAR1 text PAR1", "cannot be read as Parquet"),
    ],
)
def test_file_that_cannot_be_read_to_its_end_is_an_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(errors.MalformedFileError, match=f"{name}.*{message}|{message}"):
        read(tmp_path)


def test_all_rows_may_be_rejected(tmp_path):
    write_csv(tmp_path / "a.csv", [("a", ""), ("b", "")])
    module = read(tmp_path)
    assert len(module.train_data()) == 0 and len(module.rejected) == module.rows_seen == 2


unicode_text = st.text(max_size=20)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(unicode_text, names), min_size=1, max_size=5), st.sampled_from([*WRITERS])
)
@example([("\r\n\"',\0e\0\u0301", "x")], "csv")
@example([("\ufeff", "x")], "csv")
def test_stored_texts_are_those_of_the_file_in_normal_form(tmp_path_factory, rows, suffix):
    folder = tmp_path_factory.mktemp("text")
    (folder / "in").mkdir()
    WRITERS[suffix](folder / "in" / f"a.{suffix}", rows)
    module = read(folder / "in")
    assert module.rejected == []
    column = stored(module, folder / "s").column("inputs")
    expected = [unicodedata.normalize("NFC", text.replace("\0", "")) for text, _ in rows]
    assert [bytes(row).decode() for row in column] == expected


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["a.csv", "a.jsonl", "a.parquet"]))
@example(b'{"text": "a", "label": 1e400}', "a.jsonl")
@example(b'text,label\n"\n', "a.csv")
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("text")
    (folder / name).write_bytes(b"text,label\n" + data if name == "a.csv" else data)
    try:
        module = read(folder, task="classification")
    except errors.RenateStagesError:
        return
    assert len(module.train_data()) + len(module.rejected) == module.rows_seen


# -- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("labels", "expected", "order"),
    [
        ([10, 9, 2], ["10", "9", "2"], ("2", "9", "10")),
        ([3.0, -1.0, 3.0], ["3", "-1", "3"], ("-1", "3")),
        (["b", "10", "9"], ["b", "10", "9"], ("9", "10", "b")),
        ([True, False, True], ["True", "False", "True"], ("False", "True")),
        ([" x ", "x", "ß"], ["x", "x", "ß"], ("x", "ß")),
    ],
)
def test_labels_are_names_in_order(tmp_path, suffix, labels, expected, order):
    WRITERS[suffix](tmp_path / f"a.{suffix}", [("t", label) for label in labels])
    module = read(tmp_path)
    assert targets_of(module) == expected and module.label_order == order


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_numbers_with_a_fraction_need_a_task(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"a.{suffix}", [("t", 1.0), ("t", 0.25)])
    with pytest.raises(errors.TextTargetError, match=rf"a.{suffix}, row [23].*'0.25'"):
        read(tmp_path)
    assert targets_of(read(tmp_path, task="classification")) == ["1", "0.25"]
    module = read(tmp_path, task="regression")
    data = module.train_data()
    assert [data[row][1] for row in range(2)] == [1.0, 0.25] and data[0][1].dtype == np.float32
    assert module.label_order == ()


def test_regression_may_have_several_targets_and_rejects_what_is_no_number(tmp_path):
    rows = [("t", "1", "2"), ("t", "x", "1"), ("t", "1", ""), ("t", "1", "1e99"), ("t", "1_0", "2")]
    write_csv(tmp_path / "a.csv", rows, header=("text", "a", "b"))
    module = read(tmp_path, target=["a", "b"], task="regression")
    assert [each.tolist() for each in targets_of(module)] == [[1.0, 2.0]]
    assert [(each.row, each.reason) for each in module.rejected] == [
        (3, "a is not a number"),
        (4, "b is missing"),
        (5, "b is not a finite number of 32 bits"),
        (6, "a is not a finite number of 32 bits"),
    ]


@pytest.mark.parametrize("task", ["auto", "multilabel"])
def test_several_columns_of_zero_and_one_are_multilabel(tmp_path, task):
    rows = [("t", 0, 1), ("t", 1, 1), ("t", 2, 0), ("t", "true", "False")]
    write_csv(tmp_path / "a.csv", rows, header=("text", "a", "b"))
    module = read(tmp_path, target=["a", "b"], task=task)
    assert [each.tolist() for each in targets_of(module)] == [[0, 1], [1, 1], [1, 0]]
    assert module.rejected[0].reason == "a is not 0 or 1" and module.label_order == ()
    assert stored(module, tmp_path / "s").column("targets").dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "expected"), [([0, 1, 1], [0, 1, 1]), (["no", "yes", "no"], ["no", "yes", "no"])]
)
def test_binary_targets_are_numbers_or_names(tmp_path, labels, expected):
    write_csv(tmp_path / "a.csv", [("t", label) for label in labels])
    assert targets_of(read(tmp_path, task="binary")) == expected


def test_rows_without_a_target_column_are_ignored_by_losses(tmp_path):
    write_csv(tmp_path / "a.csv", ROWS)
    assert targets_of(read(tmp_path, target=None)) == [IGNORED] * 3


# -- pairs and metadata ---------------------------------------------------------------------------


def test_pairs_are_stored_as_one_text_with_a_separator(tmp_path):
    rows = [("a", "b", "x"), (f"a{SEPARATOR}c", "", "x")]
    write_json(tmp_path / "a.jsonl", rows, header=("one", "two", "label"))
    module = read(tmp_path, text=["one", "two"])
    assert texts_of(module) == [f"a{SEPARATOR}b", f"a c{SEPARATOR}"]
    assert module.preprocessing is not None
    module.preprocessing.fit(stored(module, tmp_path / "s"))
    assert module.preprocessing.content()["words"] == [SEPARATOR, "a"]


def test_metadata_has_the_names_that_the_pipeline_knows(tmp_path):
    rows = [
        ("t", "x", "17", "eu", "c1", "2026-11-30", "2"),
        ("t", "x", "18", "us", "c2", "2026-11-30T12:00:00+01:00", "0.5"),
        ("t", "x", "19", "us", "c2", "19700101T000005Z", "0"),
        ("t", "x", "", "us", "c2", "5", "1"),
        ("t", "x", "20", "us", "c2", "20260101", "1"),
        ("t", "x", "20", "u" * 33, "c2", "5", "1"),
        ("t", "x", "21", "us", "", "5", "1"),
        ("t", "x", "22", "us", "c2", "yesterday", "1"),
        ("t", "x", "23", "us", "c2", "inf", "1"),
        ("t", "x", "24", "us", "c2", "5", "-1"),
        ("t", "x", "25", "us", "c2", "5", ""),
    ]
    header = ("text", "label", "ticket", "region", "customer", "date", "w")
    write_csv(tmp_path / "a.csv", rows, header=header)
    module = read(tmp_path, id="ticket", source="region", group="customer", time="date", weight="w")
    assert [each.reason for each in module.rejected] == [
        "ticket is missing",
        "date is a number, in earlier rows a date",
        "region has more than 32 bytes, or NUL characters",
        "customer is missing",
        "date is not a number, nor a date or time of ISO 8601",
        "date is not a finite number",
        "w is no weight, expected 0, or a number from 1e-20 to 1e+20",
        "w is missing",
    ]
    store = stored(module, tmp_path / "s")
    assert np.array_equal(store.column("meta.id"), to_array(map(given_id, ("17", "18", "19"))))
    assert store.column("meta.source").tolist() == [b"eu", b"us", b"us"]
    assert store.column("meta.weight").tolist() == [2, 0.5, 0]
    assert store.column("meta.group").tolist() == [b"c1", b"c2", b"c2"]
    day = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    assert store.column("meta.time").tolist() == [day, day + 11 * 3600, 5.0]
    assert sort_keys(module.train_data(), "time").tolist() == [day, day + 11 * 3600, 5.0]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([date(2026, 1, 2)]),
        pa.array([datetime(2026, 1, 2)], pa.timestamp("ns")),
        pa.array([datetime(2026, 1, 2, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array(["2026-01-02T01:00+01:00"]),
        pa.array([datetime(2026, 1, 2, tzinfo=UTC).timestamp()]),
    ],
)
def test_times_of_parquet_are_seconds(tmp_path, values):
    table = pa.table({"text": ["t"], "label": ["x"], "when": values})
    pq.write_table(table, tmp_path / "a.parquet")
    data = read(tmp_path, time="when").train_data()
    assert data[0][2] == {"time": datetime(2026, 1, 2, tzinfo=UTC).timestamp()}


def test_columns_of_categories_and_decimals_are_read(tmp_path):
    frame = pd.DataFrame({"text": pd.Categorical(["a", "b"]), "label": pd.Categorical(["x", "y"])})
    table = pa.Table.from_pandas(frame).append_column(
        "n", pa.array([Decimal("1.00"), Decimal("2.00")])
    )
    pq.write_table(table, tmp_path / "a.parquet")
    module = read(tmp_path, source="n")
    assert texts_of(module) == ["a", "b"] and targets_of(module) == ["x", "y"]
    assert module.train_data()[1][2] == {"source": "2.00"}


# -- an update ------------------------------------------------------------------------------------


def test_validation_data_is_a_share_of_the_rows(tmp_path):
    write_csv(tmp_path / "a.csv", [(f"text {n}", "x") for n in range(10)])
    module = read(tmp_path, val_size=0.2, seed=3)
    val = module.val_data()
    assert val is not None and len(val) == 2 and len(module.train_data()) == 8
    assert read(tmp_path).val_data() is None


def test_later_update_continues_the_preprocessing_of_its_parent(tmp_path):
    for update in ("1", "2"):
        (tmp_path / update).mkdir()
    write_csv(tmp_path / "1" / "a.csv", [("late parcel", "x")] * 2)
    write_csv(tmp_path / "2" / "a.csv", [("late drone", "y")] * 2, header=("body", "label"))
    first = read(tmp_path / "1")
    assert isinstance(first.preprocessing, TextPreprocessing)
    first.preprocessing.fit(stored(first, tmp_path / "s1"))
    second = Text(tmp_path / "2", text="body", max_length=5)
    second.preprocessing = first.preprocessing
    second.setup()
    assert isinstance(second.preprocessing, TextPreprocessing)
    store = stored(second, tmp_path / "s2")
    assert second.preprocessing.unknown_share(store) == 0.5
    second.preprocessing.fit(store)
    assert second.preprocessing.words == ["late", "parcel", "drone"]
    assert second.feature_names == () and second.fingerprint() is None
    old = StoredDataset(
        ExampleStore.open(tmp_path / "s1"), transform=Batched(second.preprocessing.transform)
    )
    assert old.__getitems__([0])[0]["input_ids"].tolist() == [[2, 3]]
    third = Text(tmp_path / "2", text="body", lower=False)
    third.preprocessing = second.preprocessing
    with pytest.raises(errors.TextEncodingError, match="lower is False"):
        third.setup()


def test_preprocessing_of_another_kind_is_refused(tmp_path):
    write_csv(tmp_path / "a.csv", ROWS)
    module = Text(tmp_path)
    module.preprocessing = object.__new__(type("Table", (), {"kind": "table"}))  # type: ignore[assignment]
    with pytest.raises(errors.TextEncodingError, match="of kind table, not text"):
        module.setup()


def test_tokenizer_may_be_in_the_folder_or_in_the_project(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write_csv(tmp_path / "in" / "a.csv", ROWS)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "late": 1}, unk_token="[UNK]"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.MissingFileError, match=re.escape("tokenizer.json is missing")):
        read(tmp_path / "in", tokenizer="tokenizer.json")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    outside = read(tmp_path / "in", tokenizer="tokenizer.json")
    (tmp_path / "tokenizer.json").rename(tmp_path / "in" / "tokenizer.json")
    inside = read(tmp_path / "in", tokenizer="tokenizer.json")
    assert isinstance(inside.preprocessing, TextPreprocessing)
    assert texts_of(inside) == [text for text, _ in ROWS]
    assert inside.preprocessing.ids("late") == [2]  # its id 0 is no padding
    assert inside.fingerprint() == outside.fingerprint() is not None
    later = Text(tmp_path / "in", tokenizer="gone.json")
    later.preprocessing = inside.preprocessing
    (tmp_path / "in" / "tokenizer.json").unlink()
    later.setup()  # the parent has it
    assert later.fingerprint() == inside.fingerprint()


def test_batches_are_read_from_a_store(tmp_path):
    write_csv(tmp_path / "a.csv", [*ROWS, ("late late", "a")])
    module = module_class("text")(tmp_path, min_count=1)
    module.setup()
    store = stored(module, tmp_path / "s")
    assert module.preprocessing is not None
    module.preprocessing.fit(store)
    data = StoredDataset(store, transform=Batched(module.preprocessing.transform))
    inputs, targets = data.__getitems__([3, 1, 0])
    assert targets.tolist() == [0, 0, 1] and inputs["attention_mask"].sum(1).tolist() == [2, 0, 2]
    alone, _ = data[3]
    assert torch.equal(alone["input_ids"], inputs["input_ids"][0])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"text": ["a", "b", "c"]}, "text"),
        ({"text": None}, "text"),
        ({"target": []}, "target"),
        ({"target": 3}, "target"),
        ({"target": ["a", "a"]}, "target"),
        ({"target": "text"}, "target"),
        ({"target": ["a", "b"], "task": "classification"}, "target"),
        ({"target": ["a", "b"], "task": "binary"}, "target"),
        ({"source": 3}, "source"),
        ({"id": ""}, "id"),
        ({"delimiter": "::"}, "delimiter"),
        ({"delimiter": '"'}, "delimiter"),
        ({"tokenizer": ""}, "tokenizer"),
        ({"tokenizer": 3}, "tokenizer"),
        ({"task": "tokens"}, "task"),
        ({"task": None}, "task"),
        ({"max_length": 0}, "max_length"),
    ],
)
def test_unusable_settings_are_refused_by_name(tmp_path, arguments, name):
    with pytest.raises(errors.TextSettingError, match=rf"data.module, {name}: found"):
        Text(tmp_path, **arguments)


def test_share_of_validation_rows_is_checked(tmp_path):
    with pytest.raises(errors.InvalidShareError):
        Text(tmp_path, val_size=1.0)


def test_guide_lists_every_setting_with_its_default():
    guide = (Path(__file__).parents[3] / "docs" / "text.md").read_text(encoding="utf-8")
    table = guide.split("| setting | default | meaning |\n")[1].split("\n\n")[0]
    shown = {None: "null", True: "true"}
    found = {}
    for line in table.splitlines()[1:]:
        names, default, _ = line.strip("| ").split(" | ", 2)
        names = re.findall(r"`(\w+)`", names)
        found |= dict.fromkeys(names, default.replace("`", "").split(", ")[0])
    parameters = list(inspect.signature(Text).parameters.values())[1:]
    assert found == {
        each.name: shown.get(each.default, str(each.default))
        for each in parameters
        if each.name not in OF_PIPELINE
    }
