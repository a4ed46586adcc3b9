"""Text columns of `Table`: stored as texts, read as words, over updates and for raw rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from renate_stages import errors
from renate_stages.data.ingest import ingest
from renate_stages.data.modules.table import Table
from renate_stages.data.stored import StoredDataset, preprocessed
from renate_stages.preprocessing import read_preprocessing
from renate_stages.shift.rows import Sample, raw_fields, raw_names, texts_of

TITLES = ["Printer is broken", "", "Größer 🙂", None, "the printer", "None"]
COMMENTS = ['He said "no",\nand left.', "left", "the left one", "cafe\u0301", None, "x\0y"]
TABLE = {"age": range(6), "title": TITLES, "comment": COMMENTS, "y": range(6)}
SETTINGS = {"target": "y", "task": "regression", "text": ["title", "comment"], "min_count": 1}


def read(folder, frame=None, parent=None, **settings):
    folder.mkdir(exist_ok=True)
    module = Table(folder, frame=frame, **{**SETTINGS, **settings})
    module.preprocessing = parent
    module.setup()
    return module


def ingested(folder, frame=None, parent=None, **settings):
    module = read(folder, frame, parent, **settings)
    return module.preprocessing, ingest(module.train_data(), folder / "store", 1, "train")


def stored_texts(store) -> list[list[str]]:
    columns = (store.column(f"inputs.text.{place}") for place in range(2))
    return [[bytes(row).decode() for row in column] for column in columns]


@pytest.mark.parametrize("form", ["csv", "parquet", "frame"])
def test_texts_are_stored_whole_in_normal_form_and_missing_ones_are_empty(tmp_path, form):
    frame = pd.DataFrame({**TABLE, "comment": [*COMMENTS[:5], "xy"]})
    (tmp_path / "data").mkdir()
    if form == "csv":
        frame.to_csv(tmp_path / "data" / "a.csv", index=False)
    elif form == "parquet":
        frame.to_parquet(tmp_path / "data" / "a.parquet")
    _, store = ingested(tmp_path / "data", frame if form == "frame" else None)
    titles, comments = stored_texts(store)
    assert titles == ["Printer is broken", "", "Größer 🙂", "", "the printer", "None"]
    assert comments == [*COMMENTS[:3], "café", "", "xy"]


def test_nul_characters_are_left_out_and_numbers_become_texts(tmp_path):
    frame = pd.DataFrame({**TABLE, "title": [1.0, 2.5, None, 3, 4, 5]})
    titles, comments = stored_texts(ingested(tmp_path / "data", frame)[1])
    assert titles == ["1", "2.5", "", "3", "4", "5"] and comments[-1] == "xy"
    assert stored_texts(ingested(tmp_path / "plain", frame[:2])[1])[0] == ["1", "2.5"]


def test_model_gets_padded_ids_of_each_column_with_its_own_words(tmp_path):
    fitted, store = ingested(tmp_path / "data", pd.DataFrame(TABLE))
    figures = fitted.fit(store)
    titles, comments = (each.words for each in fitted.texts.columns)
    assert titles == ["printer", "broken", "größer", "is", "none", "the", "🙂"]
    assert fitted.sizes() == {
        "num_numeric": 1,
        "cardinalities": [],
        "vocab_sizes": [len(titles) + 2, len(comments) + 2],
    }
    assert figures == {"missing": {"title": 2 / 6, "comment": 1 / 6}}
    dataset = StoredDataset(store, None, preprocessed(fitted))
    inputs, _ = dataset.__getitems__([0, 4, 1])
    assert set(inputs) == {"numeric", "missing", "text"} and inputs["numeric"].shape == (3, 1)
    first, second = inputs["text"]
    assert first["input_ids"].tolist() == [[2, 5, 3], [7, 2, 0], [0, 0, 0]]
    assert first["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert second["attention_mask"].sum(1).tolist() == [9, 0, 1]
    alone, _ = dataset[4]
    assert alone["text"][0]["input_ids"].tolist() == [7, 2]


def test_words_grow_over_updates_and_their_share_is_counted_by_column(tmp_path):
    fitted, store = ingested(tmp_path / "one", pd.DataFrame(TABLE))
    fitted.fit(store)
    fitted.write(tmp_path)
    again = read_preprocessing(tmp_path)
    assert again.content() == fitted.content() and again.columns == fitted.columns
    old = [each.words for each in again.texts.columns]
    later = pd.DataFrame({**TABLE, "title": ["the toner"] * 6})
    grown, store = ingested(tmp_path / "two", later, again)
    figures = grown.fit(store)
    assert grown.texts.columns[0].words == [*old[0], "toner"]
    assert grown.texts.columns[1].words == old[1]
    assert figures["new_words"] == {"title": 1}
    assert figures["share_of_unknown_words"] == {"title": 0.5, "comment": 0.0}
    assert grown.problem_reading(fitted) is None


def test_raw_rows_are_encoded_as_they_were_stored(tmp_path):
    frame = pd.DataFrame(TABLE)
    fitted, store = ingested(tmp_path / "data", frame)
    frame = frame.drop(columns="y")
    for rows in (frame, frame.to_dict("records"), frame.to_dict("list")):
        encoded = fitted.encode(rows)
        assert [[bytes(row).decode() for row in part] for part in encoded["text"]] == stored_texts(
            store
        )
    nothing = fitted.encode([{"age": 1, "title": None, "comment": float("nan")}])
    assert [part.lengths.tolist() for part in nothing["text"]] == [[0], [0]]
    assert [each.optional for each in fitted.raw_columns if each.kind == "text"] == [True, True]
    with pytest.raises(errors.TableError, match="columns are missing: comment"):
        fitted.encode(frame.drop(columns="comment"))
    with pytest.raises(errors.TableError, match="'title' is of kind text, but has values of type"):
        fitted.encode(frame.assign(title=[["a"]] * 6))


def test_rows_whose_text_is_not_utf_8_are_rejected(tmp_path):
    (tmp_path / "data").mkdir()
    cells = pa.array([b"fine", b"\xff\xfe", None, b"caf\xc3\xa9"], pa.binary())
    texts = pa.StringArray.from_buffers(4, *cells.buffers()[1:], cells.buffers()[0])
    columns = {"age": [1.0, 2, 3, 4], "title": texts, "comment": ["a"] * 4, "y": [1.0] * 4}
    parquet.write_table(pa.table(columns), tmp_path / "data" / "a.parquet")
    module = read(tmp_path / "data")
    assert module.rejected == [("a.parquet", 2, "title is not UTF-8")]
    store = ingest(module.train_data(), tmp_path / "store", 1, "train")
    assert stored_texts(store) == [["fine", "", "café"], ["a"] * 3]
    (tmp_path / "data" / "a.parquet").unlink()
    lines = b"age,title,comment,y\n1,fine,a,1\n2,\xff\xfe,b,1\n3,,c,1\n"
    (tmp_path / "data" / "a.csv").write_bytes(lines)
    assert read(tmp_path / "data").rejected == [("a.csv", 3, "title is not UTF-8")]


def test_a_renamed_text_column_is_mapped_by_a_setting(tmp_path):
    fitted, _ = ingested(tmp_path / "one", pd.DataFrame(TABLE))
    renamed = pd.DataFrame(TABLE).rename(columns={"comment": "remark"})
    with pytest.raises(errors.TableError, match=r"(?s)missing: comment.*\{remark: comment\}"):
        read(tmp_path / "two", renamed, fitted)
    module = read(tmp_path / "two", renamed, fitted, rename={"remark": "comment"})
    assert module.preprocessing.texts.names == ("title", "comment")


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        ({"lower": False}, errors.TextEncodingError, "lower is False, in earlier updates True"),
        ({"text": ["title"], "categorical": ["comment"]}, errors.ChangedPreprocessingError, "text"),
        ({"text": "title"}, errors.TableError, "text is not a list"),
        ({"max_length": 0}, errors.TextSettingError, "max_length: found 0"),
        ({"exclude": ["title"]}, errors.TableError, "'title' is listed more than once"),
    ],
)
def test_settings_that_change_the_texts_are_refused(tmp_path, settings, error, problem):
    fitted, _ = ingested(tmp_path / "one", pd.DataFrame(TABLE))
    with pytest.raises(error, match=f"(?s){problem}.*To fix this"):
        read(tmp_path / "two", pd.DataFrame(TABLE), fitted, **settings)


def test_other_settings_of_texts_may_change(tmp_path):
    fitted, _ = ingested(tmp_path / "one", pd.DataFrame(TABLE))
    module = read(tmp_path / "two", pd.DataFrame(TABLE), fitted, max_length=2, min_count=3)
    assert {each.settings.max_length for each in module.preprocessing.texts.columns} == {2}


SENTENCES = [f"the {n}th printer is {w}" for n in range(15) for w in ("broken", "slow")]


@pytest.mark.parametrize(
    ("texts", "is_text"),
    [
        (SENTENCES, True),
        (["She called, and said that the printer is on fire again."] * 30, True),
        (["New York", "Los Angeles", "San Francisco"] * 10, False),
        (["very late to bed", "quite early in bed"] * 15, False),
    ],
    ids=["sentences", "long", "cities", "answers"],
)
def test_free_texts_that_are_not_named_are_refused_with_what_to_write(tmp_path, texts, is_text):
    frame = pd.DataFrame({"note": texts, "y": range(30)})
    if not is_text:
        assert read(tmp_path / "data", frame, text=()).preprocessing.columns == {
            "note": "categorical"
        }
        return
    with pytest.raises(errors.TableError, match=r"(?s)list it in text of data.module to read its"):
        read(tmp_path / "data", frame, text=())
    assert read(tmp_path / "data", frame, text=["note"]).preprocessing.columns == {"note": "text"}


def test_shift_compares_numbers_column_by_column_and_texts_by_their_words(tmp_path):
    _, store = ingested(tmp_path / "data", pd.DataFrame({**TABLE, "city": list("ababab")}))
    sample = Sample(((store, np.arange(6)),))
    assert raw_fields(sample) == ["inputs.numeric", "inputs.categorical"]
    assert raw_names(sample, ("age", "city")) == ["age", "city"]
    texts = texts_of(sample)
    assert texts is not None and texts[2] == "Größer 🙂 the left one"
    _, store = ingested(tmp_path / "texts", pd.DataFrame(TABLE).drop(columns="age"))
    assert raw_fields(Sample(((store, np.arange(6)),))) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["texts"].pop(),
        lambda content: content["texts"].reverse(),
        lambda content: content["texts"][0].update(words=["a", "a"]),
        lambda content: content["texts"][0]["settings"].update(method="bpe"),
        lambda content: content["texts"][0]["settings"].update(columns=["title", "comment"]),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change):
    fitted, store = ingested(tmp_path / "data", pd.DataFrame(TABLE))
    fitted.fit(store)
    fitted.write(tmp_path)
    path = tmp_path / "preprocessing" / "preprocessing.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(errors.MalformedFileError):
        read_preprocessing(tmp_path)
