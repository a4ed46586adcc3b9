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
    assert str(raised.value).count("age is not a number") == 1 + 10
    assert "and 2 more" in str(raised.value)
    assert "Reasons:\n  age is not a number: 12\nThe first rows:\n" in str(raised.value)
    with pytest.raises(errors.TooManyRejectedError):
        check_rejected(rejected[:1], 1, 0.5)


def test_too_many_rejected_rows_are_all_listed_in_a_file_until_they_are_fewer(tmp_path):
    counts = {"b": 2, "a": 30, "c": 9, "d": 9, "e": 1, "f": 1, "g": 1}
    reasons = [reason for reason, count in counts.items() for _ in range(count)]
    rejected = [Rejected("a.csv", row, each) for row, each in enumerate(reasons, 2)]
    folder, path = tmp_path / ".renate", tmp_path / ".renate" / "rejected.csv"
    with pytest.raises(errors.TooManyRejectedError) as raised:
        check_rejected(rejected, 60, 0.01, folder)
    message = str(raised.value)
    expected = "Reasons:\n  a: 30\n  c: 9\n  d: 9\n  b: 2\n  e: 1\n  and 2 other reasons\nThe first"
    assert expected in message and "and 43 more; all are in .renate/rejected.csv" in message
    lines = path.read_text().splitlines()
    assert lines == ["file,row,reason", *(f"a.csv,{n},{r}" for n, r in enumerate(reasons, 2))]
    with pytest.raises(errors.TooManyRejectedError, match=r"also in \.renate/rejected\.csv"):
        check_rejected([Rejected("1.png", None, "not an image")], 1, 0.01, folder)
    assert path.read_text() == "file,row,reason\n1.png,,not an image\n"
    check_rejected(rejected, 6000, 0.01, folder)
    assert not path.exists()
    (tmp_path / "no folder").touch()  # where no list can be written, the error is the same
    with pytest.raises(errors.TooManyRejectedError, match="and 43 more\n"):
        check_rejected(rejected, 60, 0.01, tmp_path / "no folder")
