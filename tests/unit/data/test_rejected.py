"""Rejected rows name their place, and are counted by reason."""

from __future__ import annotations

import pytest

from renate_stages import errors
from renate_stages.data import Rejected
from renate_stages.data.rejected import check_rejected, counted_by_reason


def test_place_names_the_file_and_if_there_is_one_the_row():
    assert Rejected("week.csv", 17, "no label").place == "week.csv, row 17"
    assert Rejected("cat/1.jpg", None, "not an image").place == "cat/1.jpg"


def test_reasons_are_counted_with_the_most_frequent_first():
    reasons = ["b", "c", "a", "c", "b", "c"]
    counts = counted_by_reason(Rejected("f", row, each) for row, each in enumerate(reasons))
    assert list(counts.items()) == [("c", 3), ("b", 2), ("a", 1)]


def test_too_many_rejected_rows_are_refused_with_the_first_ten():
    rejected = [Rejected("a.csv", row, "age is not a number") for row in range(2, 14)]
    check_rejected(rejected, 1200, 0.01)
    with pytest.raises(errors.TooManyRejectedError, match="12 of 1000 rows") as raised:
        check_rejected(rejected, 1000, 0.01)
    assert str(raised.value).count("age is not a number") == 10
    assert "and 2 more" in str(raised.value)
    with pytest.raises(errors.TooManyRejectedError):
        check_rejected(rejected[:1], 1, 0.5)
