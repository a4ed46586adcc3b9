"""The example texts are the same in every run, with a new topic and then new words."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from renate_stages import errors
from renate_stages.actions import example_data, example_text
from renate_stages.actions.example_text import FILE, tickets
from renate_stages.data import ingest
from renate_stages.data.modules.text import Text
from renate_stages.tasks.labels import LabelNames


def test_tickets_are_written_and_read_by_the_data_module(tmp_path):
    example_data.write("text", tmp_path / "in", 1)
    assert example_data.holds("text", tmp_path / "in", 1) and not example_data.holds(
        "text", tmp_path / "in", 2
    )
    module = Text(tmp_path / "in", target="topic", id="ticket", time="date")
    module.setup()
    assert module.rows_seen == 400 and module.rejected == []
    assert module.label_order == ("delivery", "login", "payment", "return")


def test_an_update_always_has_the_same_bytes(tmp_path):
    digests = []
    for update in (1, 2, 3):
        example_data.write("text", tmp_path, update)
        digests.append(sha256((tmp_path / FILE).read_bytes()).hexdigest()[:12])
    assert digests == ["157fcc795d6c", "f5d932613990", "576e71cdac4b"]


def test_topics_of_each_update():
    found = {
        update: dict(Counter(topic for _, topic, _, _ in tickets(update))) for update in (1, 2, 3)
    }
    assert found == example_text.ROWS
    rows = [row for update in (1, 2, 3) for row in tickets(update)]
    assert len({ticket for *_, ticket, _ in rows}) == len(rows)
    days = [day for *_, day in rows]
    assert days == sorted(days)


def test_topics_can_be_learnt_from_words_and_new_words_make_it_harder():
    texts, topics = zip(*((text, topic) for text, topic, *_ in tickets(1)), strict=True)
    half = np.arange(len(texts)) % 2 == 0
    counts = CountVectorizer()
    seen = counts.fit_transform([text for text, train in zip(texts, half, strict=True) if train])
    labels = np.array(topics)
    model = MultinomialNB().fit(seen, labels[half])

    def accuracy(rows, expected) -> float:
        return float((model.predict(counts.transform(rows)) == np.array(expected)).mean())

    before = accuracy(
        [text for text, train in zip(texts, half, strict=True) if not train], labels[~half]
    )
    later = [(text, topic) for text, topic, *_ in tickets(3) if topic != "subscription"]
    assert before > 0.85 and accuracy(*zip(*later, strict=True)) < before


def test_share_of_unknown_words_grows_with_new_topics_and_words(tmp_path):
    shares, preprocessing = [], None
    for update in (1, 2, 3):
        example_data.write("text", tmp_path / "in", update)
        module = Text(tmp_path / "in", target="topic")
        module.preprocessing = preprocessing
        module.setup()
        preprocessing = module.preprocessing
        assert preprocessing is not None
        names, ragged = LabelNames().numbers, module.ragged_fields
        store = ingest(
            module.train_data(),
            tmp_path / str(update),
            update,
            "train",
            ragged=ragged,
            numbers=names,
        )
        preprocessing.fit(store)
        shares.append(preprocessing.unknown_before)
    assert shares[0] is None and shares[1] > 0.05 and shares[2] > 0.05


def test_other_data_is_not_replaced(tmp_path):
    (tmp_path / FILE).write_text("text,topic\nmine,x\n")
    with pytest.raises(errors.ForeignDataError):
        example_data.write("text", tmp_path, 1)
    assert (tmp_path / FILE).read_text() == "text,topic\nmine,x\n"


def test_unknown_update_is_refused(tmp_path):
    with pytest.raises(errors.UnknownExampleUpdateError, match="found update 4"):
        example_data.write("text", tmp_path, 4)
