"""The test of new words, against a plain loop, and on stored texts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from renate_stages.memory import ExampleStore, Ragged, StoreWriter
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.shift import NewWords
from renate_stages.shift.comparison import Comparison
from renate_stages.shift.rows import Sample, texts_of
from renate_stages.state.state import State, write_empty

OLD = ["The cat sat.", "a cat; a dog!", "the Dog ran", "", "ran and sat"]
NEW = ["the bird sat", "BIRD", "a cat", "new words: nineteen"]


def test_share_of_new_words_and_p_value_match_a_plain_loop():
    result = NewWords(50).fit(np.array(OLD)).test(np.array(NEW), np.random.default_rng(3))
    split_into_words = [
        ["the", "cat", "sat"], ["a", "cat", "a", "dog"], ["the", "dog", "ran"], [],
        ["ran", "and", "sat"], ["the", "bird", "sat"], ["bird"], ["a", "cat"],
        ["new", "words", "nineteen"],
    ]  # fmt: skip

    def share(first: set[int]) -> float:
        known = {word for place in first for word in split_into_words[place]}
        rest = [w for place in set(range(9)) - first for w in split_into_words[place]]
        return sum(word not in known for word in rest) / max(len(rest), 1)

    assert result.statistic == pytest.approx(share({*range(5)})) == pytest.approx(5 / 9)
    draws = np.random.default_rng(3)
    drawn = [
        share(set(draws.choice(9, 5, replace=False, shuffle=False).tolist())) for _ in range(50)
    ]
    reached = sum(each >= result.statistic - 1e-12 for each in drawn)
    assert result.p_value == (reached + 1) / 51
    assert result.effect_size == pytest.approx(max(0, result.statistic - np.mean(drawn)), abs=1e-6)


def test_texts_without_words_do_not_differ():
    nothing = np.array(["", "...", "", ""])
    result = NewWords(9).fit(nothing).test(nothing, np.random.default_rng(0))
    assert (result.statistic, result.p_value, result.effect_size) == (0, 1, 0)


def stored(folder, inputs: Any) -> tuple[ExampleStore, np.ndarray]:
    rows = len(inputs["one"] if isinstance(inputs, dict) else inputs)
    with StoreWriter(folder, update=1) as writer:
        writer.append((inputs, np.zeros(rows, int)))
    return ExampleStore.open(folder), np.arange(rows)


def utf8(texts: list[str], decoder: str | None = None) -> Ragged:
    return Ragged.of([np.frombuffer(text.encode(), np.uint8) for text in texts], decoder)


def test_stored_texts_are_read_and_other_inputs_are_not_texts(tmp_path):
    texts = ["größer", "", "two words", "x"]
    others = {
        "bytes": Ragged.of([np.array([200, 201], np.uint8)] * 4),
        "tokens": Ragged.of([np.array([1, 2])] * 4),
        "numbers": np.zeros((4, 2)),
    }
    found = texts_of(Sample((stored(tmp_path / "text", utf8(texts)),)))
    assert found is not None and found.tolist() == texts
    pair = texts_of(Sample((stored(tmp_path / "pair", {"one": utf8(texts), "two": utf8(texts)}),)))
    assert pair is not None and pair.tolist() == [f"{text} {text}" for text in texts]
    for name, inputs in others.items():
        assert texts_of(Sample((stored(tmp_path / name, inputs),))) is None


def test_new_words_are_tested_if_inputs_are_texts_and_no_model_is_there(tmp_path):
    generator = np.random.default_rng(0)

    def sample(name: str, first: int) -> Sample:
        words = first + generator.integers(200, size=(100, 12))
        texts = [" ".join(f"w{word}" for word in row) for row in words]
        return Sample((stored(tmp_path / name, utf8(texts)),))

    write_empty(tmp_path / "parent")
    content = {"shift": {"tests": ["mmd", "words"]}, "update": {"number": 2, "parent": 1}}
    user = SimpleNamespace(functions={}, test_transforms=lambda _: (None, None))
    for first, alarms in ((0, 0), (60, 1)):
        comparison = Comparison(
            cast(Any, user),
            Params.parse(content),
            State.open(tmp_path / "parent"),
            sample(f"old {first}".replace(" ", "-"), 0),
            sample(f"new {first}".replace(" ", "-"), first),
        )
        shift = comparison.shift(Generators(0, 2))
        assert set(shift.figures["tests"]) == {"words"} and shift.features == []
        assert shift.figures["alarms"] == alarms
        assert (shift.figures["tests"]["words"]["effect_size"] > 0.2) == bool(alarms)
        assert "no model" in shift.figures["skipped"]["mmd"]
