"""Rejected rows name their place, and are counted by reason."""

from __future__ import annotations

from renate_stages.data import Rejected
from renate_stages.data.rejected import counted_by_reason


def test_place_names_the_file_and_if_there_is_one_the_row():
    assert Rejected("week.csv", 17, "no label").place == "week.csv, row 17"
    assert Rejected("cat/1.jpg", None, "not an image").place == "cat/1.jpg"


def test_reasons_are_counted_with_the_most_frequent_first():
    reasons = ["b", "c", "a", "c", "b", "c"]
    counts = counted_by_reason(Rejected("f", row, each) for row, each in enumerate(reasons))
    assert list(counts.items()) == [("c", 3), ("b", 2), ("a", 1)]
