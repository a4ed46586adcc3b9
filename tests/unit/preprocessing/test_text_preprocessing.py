"""Texts become the same ids alone, in a batch and in later updates."""

from __future__ import annotations

import json
import pickle
import re
import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from renate_stages import errors
from renate_stages.data import Batched, ColumnDataset, StoredDataset, ingest
from renate_stages.memory import ExampleStore
from renate_stages.preprocessing import FOLDER, read_preprocessing
from renate_stages.preprocessing.text import TOKENIZER, TextPreprocessing
from renate_stages.preprocessing.text_settings import TextSettings
from renate_stages.preprocessing.words import SEPARATOR, Vocabulary, clean_text, words_of

TEXTS = ["The parcel is late.", "the parcel is lost", "Naïve café", "", "Where is the parcel?"]
PAIR = ("first", "second")


def stored(rows, path, preprocessing=None) -> ExampleStore:
    """Return a store of texts or pairs with the label 0."""
    inputs = (preprocessing or TextPreprocessing()).encode(rows)
    return ingest(ColumnDataset(inputs, [0] * len(inputs)), path, 1, "train")


def fitted(rows, path, **values) -> TextPreprocessing:
    found = TextPreprocessing(TextSettings(**values))
    found.fit(stored(rows, path, found))
    return found


def batch_of(preprocessing, rows) -> dict[str, torch.Tensor]:
    """Return the model's inputs for raw rows, as a batch."""
    texts = list(preprocessing.encode(rows))
    width = max(map(len, texts))
    padded = np.stack([np.pad(text, (0, width - len(text))) for text in texts])
    return preprocessing.transform(torch.from_numpy(padded))


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't panic: 3.5 kg!", ["don", "'", "t", "panic", ":", "3", ".", "5", "kg", "!"]),
        ("snake_case  x\ty\n", ["snake_case", "x", "y"]),
        ("Straße ΣΟΦΟΣ", ["straße", "σοφος"[:-1] + "ς"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are combining marks
        ("東京 🙂👍", ["東京", "🙂", "👍"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("a\u00a0b\u2028c", ["a", "b", "c"]),
        ("", []),
        (" \n", []),
    ],
)
def test_words(text, words):
    assert words_of(text, 100) == words


def test_case_is_kept_if_lower_is_false():
    assert words_of("Late PARCEL", 100, lower=False) == ["Late", "PARCEL"]


@given(st.text(max_size=80), st.integers(1, 6))
def test_first_words_are_those_of_all_words(text, most):
    long = f"{text} {text}" * 40
    assert words_of(long, most) == words_of(long, 10**9)[:most]
    joined = "".join(words_of(text, 10**9, lower=False))
    assert joined == re.sub(r"\s", "", text)  # only white space is left out


def test_vocabulary_is_ordered_by_frequency_and_then_by_alphabet():
    vocabulary = Vocabulary()
    assert vocabulary.grow(Counter("ccbbaaadde"), 2, 100) == 4
    assert vocabulary.words == ["a", "b", "c", "d"] and len(vocabulary) == 6
    assert vocabulary.ids(["a", "d", "e"]) == [2, 5, 1]


def test_vocabulary_does_not_exceed_its_size():
    vocabulary = Vocabulary(["x"])
    assert vocabulary.grow(Counter("ccbbaaa"), 1, 5) == 2
    assert vocabulary.words == ["x", "a", "b"]
    assert vocabulary.grow(Counter("zzz"), 1, 3) == 0 and vocabulary.words == ["x", "a", "b"]


# -- fit and transform ----------------------------------------------------------------------------


def test_inputs_of_the_model_are_padded_with_zeros_and_masked(tmp_path):
    found = fitted(TEXTS, tmp_path / "s")
    assert found.words == ["is", "parcel", "the"] and found.sizes()["vocab_size"] == 5
    batch = batch_of(found, ["The lost parcel", "", "is"])
    assert batch["input_ids"].tolist() == [[4, 1, 3], [0, 0, 0], [2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert {each.dtype for each in batch.values()} == {torch.int64}


def test_batch_of_empty_texts_has_one_column(tmp_path):
    batch = TextPreprocessing().transform(torch.zeros((2, 0), dtype=torch.uint8))
    assert batch["input_ids"].tolist() == [[0], [0]]
    assert batch["attention_mask"].tolist() == [[0], [0]]


words = st.lists(st.sampled_from(["parcel", "is", "Late", "é", "कि", "!", "\0", "x"]), max_size=12)
texts = st.one_of(st.text(max_size=30), words.map(" ".join))


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.integers(3, 20), st.booleans())
@example(["e\0\u0301", "\0", ""], 3, False)
@example(["parcel " * 10_000, "late"], 5, False)
def test_batch_has_the_ids_of_each_text_alone(rows, most, pair):
    given_rows = [(row, row[::-1]) for row in rows] if pair else rows
    columns = PAIR if pair else ("text",)
    special = [SEPARATOR] if pair else []
    found = TextPreprocessing(
        TextSettings(columns, max_length=most), words=[*special, "parcel", "is", "late", "é", "!"]
    )
    batch = batch_of(found, given_rows)
    for row, ids, mask in zip(given_rows, batch["input_ids"], batch["attention_mask"], strict=True):
        alone = batch_of(found, [row])
        length = int(alone["attention_mask"].sum())
        assert length <= most
        assert ids[:length].tolist() == alone["input_ids"][0, :length].tolist()
        assert not ids[length:].any() and mask.tolist() == [1] * length + [0] * (len(mask) - length)


@given(st.lists(texts, min_size=1, max_size=5))
def test_stored_bytes_are_the_text_in_normal_form_without_nul(rows):
    for text, row in zip(rows, TextPreprocessing().encode(rows), strict=True):
        assert bytes(row).decode() == unicodedata.normalize("NFC", text.replace("\0", ""))


def test_texts_of_ten_thousand_tokens_are_stored_whole_and_cut_off_when_read(tmp_path):
    long = " ".join(f"word{n % 7}" for n in range(10_000))
    found = fitted([long, "word1"], tmp_path / "s", max_length=20)
    store = ExampleStore.open(tmp_path / "s")
    assert bytes(store.column("inputs")[0]).decode() == long
    inputs, _ = StoredDataset(store, transform=Batched(found.transform)).__getitems__([0, 1])
    assert inputs["input_ids"].shape == (2, 20) and inputs["attention_mask"].sum().item() == 21


def test_texts_that_are_cut_off_are_counted(tmp_path):
    rows = ["a b c", "a b", "a, b", "", "a " * 9_000]
    cut = {"texts_cut_off_at_max_length": {"text": 3}}
    found = TextPreprocessing(TextSettings(max_length=2))
    assert found.fit(stored(rows, tmp_path / "words", found)) == cut
    assert found.summary() == "texts: text, read with a vocabulary of 2 words"
    pairs = TextPreprocessing(TextSettings(PAIR, max_length=3))
    figures = pairs.fit(stored([("a", "b"), ("a b", ""), ("", "a b c")], tmp_path / "pairs", pairs))
    assert figures == {"texts_cut_off_at_max_length": {"first and second": 1}}
    tokenizer = of_file(word_tokenizer(), max_length=4)  # with two special tokens
    figures = tokenizer.fit(stored(["late parcel", "late late late", "x"], tmp_path / "file"))
    assert figures["texts_cut_off_at_max_length"] == {"text": 1}
    assert tokenizer.summary() == "texts: text, read with the given tokenizer of 6 ids"


@pytest.mark.parametrize("texts", [[""] * 5, ["a", "b", "c d"]])
def test_texts_without_a_frequent_word_make_no_vocabulary(tmp_path, texts):
    with pytest.raises(errors.NoWordsError, match="in text, no word occurs at least 2 times"):
        fitted(texts, tmp_path / "s", min_count=2)


def test_words_beyond_max_length_are_not_counted(tmp_path):
    found = fitted(["a b c", "a b c"], tmp_path / "s", max_length=2)
    assert found.words == ["a", "b"]


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.lists(texts, min_size=1, max_size=5))
def test_ids_of_known_words_never_change(tmp_path_factory, old, new):
    assume(any(words_of(clean_text(text), 512) for text in old))
    folder = tmp_path_factory.mktemp("text")
    found = fitted(old, folder / "1", min_count=1)
    before, known = found.words, batch_of(found, [*old, "?"])
    found.fit(stored(new, folder / "2"))
    assert found.words[: len(before)] == before
    after = batch_of(found, [*old, "?"])
    was_known = known["input_ids"] != 1
    assert (known["input_ids"][was_known] == after["input_ids"][was_known]).all()
    counts = Counter(word for text in new for word in words_of(clean_text(text), 512))
    added = sorted(counts.keys() - {*before}, key=lambda word: (-counts[word], word))
    assert found.words[len(before) :] == added and found.added == len(added)


def test_share_of_unknown_words_is_counted_before_the_vocabulary_grows(tmp_path):
    found = fitted(["parcel late", "parcel late"], tmp_path / "1")
    assert found.unknown_before is None
    new = stored(["parcel drone drone late", "", "drone"], tmp_path / "2")
    assert found.unknown_share(new) == pytest.approx(3 / 5)
    found.fit(new)
    assert found.unknown_before == pytest.approx(3 / 5) and found.added == 1
    assert found.unknown_share(new) == 0
    assert TextPreprocessing().unknown_share(new) is None
    assert found.unknown_share(stored([""], tmp_path / "3")) is None


# -- pairs ----------------------------------------------------------------------------------------


def test_pairs_have_a_separator_and_a_word_of_their_own_for_it(tmp_path):
    found = fitted([("late late", "parcel parcel")], tmp_path / "s", columns=PAIR)
    assert found.words == [SEPARATOR, "late", "parcel"]
    assert batch_of(found, [("late", "new parcel")])["input_ids"].tolist() == [[3, 2, 1, 4]]
    assert batch_of(found, [("", "")])["input_ids"].tolist() == [[2]]
    assert batch_of(found, [(f"late{SEPARATOR}late", "")])["input_ids"].tolist() == [[3, 3, 2]]
    assert found.unknown_share(stored([("late", "x")], tmp_path / "t", found)) == 0.5


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (9, 1, (5, 1)),
        (1, 9, (1, 5)),
        (9, 9, (3, 3)),
        (4, 4, (3, 3)),
        (2, 3, (2, 3)),
        (0, 9, (0, 6)),
    ],
)
def test_longer_text_of_a_pair_is_shortened_first(first, second, expected):
    found = TextPreprocessing(TextSettings(PAIR, max_length=7), words=[SEPARATOR, "a", "b"])
    ids = found.ids(f"{'a ' * first}{SEPARATOR}{'b ' * second}")
    assert ids == [3] * expected[0] + [2] + [4] * expected[1]


# -- rows of a deployed model ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        ["one", "two"],
        np.array(["one", "two"]),
        pd.Series(["one", "two"]),
        pd.DataFrame({"n": [1, 2], "text": ["one", "two"]}),
        [{"text": "one"}, {"text": "two", "n": 3}],
    ],
)
def test_raw_rows_may_have_several_forms(rows):
    assert [bytes(row) for row in TextPreprocessing().encode(rows)] == [b"one", b"two"]


def test_raw_pairs_may_be_tuples_or_a_table():
    found = TextPreprocessing(TextSettings(PAIR))
    table = pd.DataFrame({"second": ["b"], "first": ["a"]})
    arrow = pa.Table.from_pandas(table)
    for rows in ([("a", "b")], [["a", "b"]], table, arrow, [{"first": "a", "second": "b"}]):
        assert [bytes(row) for row in found.encode(rows)] == [b"a\x1fb"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("one text", "the rows: found one str"),
        ({"text": "one"}, "the rows: found one dict"),
        (["one", 2], "row 1: found int"),
        (["one", None], "row 1: found NoneType"),
        ([("a", "b")], "row 0: found tuple"),
        (["a", "\ud800"], "row 1: the text has half of a character"),
        (pd.DataFrame({"body": ["a"]}), "the table has no column 'text'"),
        ([{"body": "a"}], "row 0: found NoneType"),
    ],
)
def test_unusable_raw_rows_are_named(rows, message):
    with pytest.raises(errors.TextRowError, match=re.escape(message)):
        TextPreprocessing().encode(rows)


def test_inputs_that_are_no_stored_texts_are_refused():
    with pytest.raises(TypeError, match="float32"):
        TextPreprocessing().transform(torch.zeros((2, 3)))


# -- files ----------------------------------------------------------------------------------------


def test_written_preprocessing_is_read_again(tmp_path):
    found = fitted(TEXTS, tmp_path / "s", columns=("body",), max_length=9, min_count=1)
    found.built = {"num_outputs": 3}
    found.write(tmp_path)
    again = read_preprocessing(tmp_path)
    assert isinstance(again, TextPreprocessing)
    assert again.content() == found.content() and again.built == found.built
    assert again.problem_with(found) is None
    expected = batch_of(found, TEXTS)["input_ids"]
    assert torch.equal(batch_of(pickle.loads(pickle.dumps(again)), TEXTS)["input_ids"], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"words": "abc"},
        {"words": ["a", "a"]},
        {"words": ["a", 1]},
        {"words": ["", "a"]},
        {"words": None},
        {"settings": {}},
        {"settings": {"columns": [], "max_length": 5}},
        {"tokenizer": "0" * 64},
    ],
)
def test_damaged_content_is_refused(tmp_path, change):
    fitted(TEXTS, tmp_path / "s").write(tmp_path)
    file = tmp_path / FOLDER / "preprocessing.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(errors.MalformedFileError):
        read_preprocessing(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lower": False}, "lower is False, in earlier updates True"),
        ({"columns": PAIR}, "text has 2 column"),
        ({"method": "bpe"}, "the tokenizer is 'bpe', in earlier updates 'words'"),
    ],
)
def test_settings_that_change_ids_are_refused(tmp_path, values, message):
    found = fitted(TEXTS, tmp_path / "s")
    with pytest.raises(errors.TextEncodingError, match=re.escape(message)):
        found.with_settings(TextSettings(**values))


def test_other_settings_may_change(tmp_path):
    found = fitted(TEXTS, tmp_path / "s")
    changed = found.with_settings(TextSettings(("body",), max_length=2, vocab_size=9, min_count=1))
    assert changed.words == found.words
    assert batch_of(changed, ["the parcel is"])["input_ids"].tolist() == [[4, 3]]


def test_another_vocabulary_cannot_read_old_examples():
    old, new = (TextPreprocessing(words=words) for words in (["a", "b"], ["b", "a"]))
    assert "does not begin" in (new.problem_with(old) or "")
    assert new.problem_with(TextPreprocessing(words=["b"])) is None


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"columns": ()}, "text"),
        ({"columns": ("a", "a")}, "text"),
        ({"columns": ("a", "b", "c")}, "text"),
        ({"columns": (3,)}, "text"),
        ({"columns": (["a"],)}, "text"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"columns": PAIR, "max_length": 2}, "max_length"),
        ({"vocab_size": 1}, "vocab_size"),
        ({"min_count": 0}, "min_count"),
        ({"lower": "yes"}, "lower"),
        ({"method": "bert"}, "tokenizer"),
    ],
)
def test_unusable_settings_are_refused_by_name(values, name):
    with pytest.raises(errors.TextSettingError, match=rf"data.module, {name}: found"):
        TextSettings(**values)


# -- tokenizers -----------------------------------------------------------------------------------


def word_tokenizer(**model) -> Tokenizer:
    """Return a tokenizer of words with special tokens as BERT has them."""
    ids = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "late": 4, "parcel": 5}
    found = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return found


def of_file(tokenizer: Tokenizer, **values) -> TextPreprocessing:
    return TextPreprocessing(TextSettings(method="file", **values), tokenizer.to_str().encode())


def test_ids_are_those_of_a_given_tokenizer(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.enable_padding(length=9)  # we pad each batch to its longest text
    found = of_file(tokenizer, max_length=4)
    assert found.sizes() == {"vocab_size": 6, "max_length": 4}
    assert found.sizes_of_new_model() == {"vocab_size": 6, "max_length": 512}
    assert of_file(tokenizer, max_length=700).sizes_of_new_model()["max_length"] == 700
    batch = batch_of(found, ["late parcel x y z", "", "parcel"])
    assert batch["input_ids"].tolist() == [[2, 4, 5, 3], [2, 3, 0, 0], [2, 5, 3, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 2, 3]
    store = stored(["late x"], tmp_path / "s")
    found.fit(store)
    assert found.unknown_before == 1 / 4 and found.words == []


def test_pairs_are_encoded_as_the_tokenizer_does():
    found = of_file(word_tokenizer(), columns=PAIR)
    assert (
        found.ids(f"late{SEPARATOR}parcel late")
        == word_tokenizer().encode("late", "parcel late").ids
    )


@pytest.mark.parametrize(
    ("first", "raised"), [("[PAD]", 0), ("<pad>", 0), ("<|pad|>", 0), ("<s>", 1), ("!", 1)]
)
def test_ids_of_a_tokenizer_without_padding_at_zero_are_raised_by_one(tmp_path, first, raised):
    tokenizer = Tokenizer(models.WordLevel({first: 0, "<unk>": 1, "late": 2}, unk_token="<unk>"))
    found = of_file(tokenizer)
    assert found.ids("late") == [2 + raised] and found.ids("x") == [1 + raised]
    assert found.sizes()["vocab_size"] == 3 + raised
    assert found.unknown_share(stored(["x"], tmp_path / "s")) == 1
    assert pickle.loads(pickle.dumps(found)).ids("late") == [2 + raised]


def test_tokenizer_is_kept_and_must_not_change(tmp_path):
    found = of_file(word_tokenizer())
    found.write(tmp_path)
    again = read_preprocessing(tmp_path)
    assert isinstance(again, TextPreprocessing) and again.tokenizer == found.tokenizer
    assert again.problem_with(found) is None
    assert pickle.loads(pickle.dumps(again)).ids("late") == [2, 4, 3]
    assert again.with_settings(again.settings).tokenizer == found.tokenizer
    other = word_tokenizer()
    other.add_tokens(["drone"])
    with pytest.raises(errors.TextEncodingError, match="not that of earlier updates"):
        again.with_settings(again.settings, other.to_str().encode())
    (tmp_path / FOLDER / TOKENIZER).write_text(other.to_str())
    with pytest.raises(errors.MalformedFileError, match="not the file that was recorded"):
        read_preprocessing(tmp_path)
    (tmp_path / FOLDER / TOKENIZER).unlink()
    with pytest.raises(errors.MalformedFileError, match="missing"):
        read_preprocessing(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "Model missing"),
        (b"\xff", "invalid start byte"),
        (Tokenizer(models.BPE(dropout=0.1)).to_str().encode(), "dropout"),
    ],
)
def test_unusable_tokenizers_are_refused(data, message):
    with pytest.raises(errors.InvalidTokenizerError, match=f"to.json cannot be used.*{message}"):
        TextPreprocessing(TextSettings(method="file"), data, "to.json")


def test_max_length_must_leave_tokens_for_the_text():
    with pytest.raises(errors.InvalidTokenizerError, match="adds 2 special tokens"):
        of_file(word_tokenizer(), max_length=2)


@pytest.mark.parametrize("pair", [False, True])
def test_byte_pairs_are_trained_once_and_know_every_text(tmp_path, pair):
    columns = PAIR if pair else ("text",)
    rows = [(each, each) if pair else each for each in TEXTS * 3]
    found = fitted(rows, tmp_path / "1", columns=columns, method="bpe", vocab_size=300)
    tokenizer, size = found.tokenizer, found.sizes()["vocab_size"]
    assert tokenizer is not None and 258 < size <= 300
    again = fitted(rows, tmp_path / "2", columns=columns, method="bpe", vocab_size=300)
    assert again.tokenizer == tokenizer
    assert found.unknown_before is None
    found.fit(stored([("drone", "x") if pair else "drone"], tmp_path / "3", found))
    assert found.tokenizer == tokenizer and found.unknown_before is None
    text = f"PARCEL{SEPARATOR}नया 🙂" if pair else "PARCEL नया 🙂"
    ids = found.ids(text)
    assert 1 not in ids and ids.count(2) == (1 if pair else 0)
    decoded = Tokenizer.from_str(tokenizer.decode()).id_to_token
    assert decoded(0) == "[PAD]" and decoded(1) == "[UNK]"
    found.write(tmp_path)
    read = read_preprocessing(tmp_path)
    assert isinstance(read, TextPreprocessing) and read.ids(text) == ids


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(errors.MissingExtraError, match=re.escape("renate-stages[text]")):
        TextPreprocessing(TextSettings(method="file"), b"{}")
