"""Pictures of a search: positions of values on an axis, and correlation with the objective."""

from __future__ import annotations

import pytest
from scipy.stats import spearmanr

from renate_stages.reporting.search_pictures import draw_search, places, rank_correlation

HEAD = "trial,status,epochs,value,learner,learning_rate,momentum,size\n"
TRIALS = HEAD + "".join(
    f"{n},completed,3,{value},{learner},{rate},{momentum},32\n"
    for n, (value, learner, rate, momentum) in enumerate(
        [
            (0.5, "ER", 0.001, ""),
            (0.8, "DER", 0.03, 0.5),
            (0.9, "ER", 0.1, 0.1),
            (0.2, "DER", 1.0, 0.9),
        ]
    )
)


def test_axis_places_numbers_by_value_and_names_alphabetically():
    assert places(["1", "2", "3"]) == [0.0, 0.5, 1.0]
    assert places(["0.001", "0.01", "1.0"]) == pytest.approx([0, 1 / 3, 1])
    assert places(["ER", "DER", "ER"]) == [1.0, 0.0, 1.0]
    assert places(["", "2", "4"]) == [0.0, 0.0, 1.0]
    assert places(["3", "3"]) == [0.0, 0.0] and places(["", ""]) == [0.0, 0.0]


def test_rank_correlation_matches_scipy():
    one, other = [3.0, 1.0, 2.0, 2.0, 5.0], [0.1, 0.3, 0.2, 0.5, 0.5]
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_search_pictures_are_drawn_with_identical_bytes(tmp_path):
    table = tmp_path / "tuning_trials.csv"
    table.write_text(TRIALS)
    first = [path.read_bytes() for path in draw_search(tmp_path / "once", table, "accuracy")]
    again = draw_search(tmp_path / "again", table, "accuracy", lower_is_better=False)
    assert [path.name for path in again] == ["tuning_parallel.png", "tuning_importance.png"]
    assert [path.read_bytes() for path in again] == first


@pytest.mark.parametrize("rows", [HEAD, HEAD + "0,failed,0,,ER,0.1,0.5,32\n", None])
def test_no_picture_is_drawn_without_completed_trials(tmp_path, rows):
    table = tmp_path / "tuning_trials.csv"
    if rows is not None:
        table.write_text(rows)
    assert draw_search(tmp_path, table, "accuracy") == []
