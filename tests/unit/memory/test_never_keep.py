"""`retention.never_keep`: values are compared in the type of the sources, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from small_project import edit_config, edit_params, run, sources

from renate_stages.errors import InvalidParamsError, NeverKeepError
from renate_stages.memory import ExampleStore, StoreWriter, evolve
from renate_stages.memory.never_keep import check_never_keep, never_kept
from renate_stages.params import Params
from renate_stages.state.prepared import PreparedData

TEXTS = np.array([b"eu", b"", b"3", b"x" * 32], "S32")


@pytest.fixture
def store_of(tmp_path):
    """Return a function that makes a store whose first two rows have no source."""

    def make(column) -> ExampleStore:
        for name, known in (("old", {}), ("new", {"source": np.asarray(column)})):
            rows = len(column) if known else 2
            with StoreWriter(tmp_path / name, 1) as writer:
                writer.append((np.zeros((rows, 1)), np.zeros(rows, int)), known)
        old, new = ExampleStore.open(tmp_path / "old"), ExampleStore.open(tmp_path / "new")
        return evolve(tmp_path / "both", old, np.arange(2), new, np.arange(len(column)), 2)

    return make


@pytest.mark.parametrize(
    ("column", "values", "rows"),
    [
        (TEXTS, ["eu"], [2]),
        (TEXTS, ["", "3"], [3, 4]),
        (TEXTS, ["x" * 32, "nobody"], [5]),
        ([3, -1, 0], ["3"], [2]),
        ([3, -1, 0], [3, 0], [2, 4]),
        ([3, -1, 0], ["-1", "0.0"], [3, 4]),
        ([3, -1, 0], [3.5, 10**30, 9], []),
        ([0.5, np.nan, 3.0], ["0.5", 3], [2, 4]),
        ([0.5, np.nan, 3.0], ["5e-1"], [2]),
        ([True, False], [True], [2]),
        ([True, False], ["0"], [3]),
        ([3, 4], [], []),
    ],
)
def test_never_keep_values_are_compared_in_the_type_of_the_sources(store_of, column, values, rows):
    store = store_of(column)
    check_never_keep(values, [store])
    assert np.flatnonzero(never_kept(store, values)).tolist() == rows


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        (TEXTS, 3, ": 3 cannot match any source; .* strings of up to 32 bytes"),
        (TEXTS, "x" * 33, "strings of up to 32 bytes"),
        (TEXTS, "ä" * 17, "strings of up to 32 bytes"),
        (TEXTS, "e\0", "strings of up to"),
        ([3, 4], "eu", "'eu' cannot match any source; .* numbers"),
        ([3, 4], "nan", "numbers"),
        ([3, 4], "", "numbers"),
        ([3, 4], float("nan"), "numbers"),
        (np.zeros((2, 3)), "3", r"arrays of shape \(3,\)"),
    ],
)
def test_never_keep_value_that_cannot_match_any_source_is_refused(store_of, column, value, problem):
    with pytest.raises(NeverKeepError, match=problem):
        check_never_keep(["7" if column is not TEXTS else "ok", value], [store_of(column)])


def test_never_keep_value_must_fit_the_sources_of_at_least_one_store(store_of, tmp_path):
    """An old holdout may have sources of another type than the current data."""
    texts = store_of(TEXTS)
    with StoreWriter(tmp_path / "numbers", 1) as writer:
        writer.append((np.zeros((2, 1)), np.zeros(2, int)), {"source": np.array([3, 4])})
    numbers = ExampleStore.open(tmp_path / "numbers")
    check_never_keep(["eu", 3], [texts, numbers])
    assert np.flatnonzero(never_kept(texts, ["eu", 3])).tolist() == [2]
    assert np.flatnonzero(never_kept(numbers, ["eu", 3])).tolist() == [0]


def test_never_keep_matches_nothing_in_a_store_without_sources(tmp_path):
    with StoreWriter(tmp_path / "s", 1) as writer:
        writer.append((np.zeros((2, 1)), np.zeros(2, int)))
    store = ExampleStore.open(tmp_path / "s")
    check_never_keep(["eu", 3], [store])
    assert not never_kept(store, ["eu"]).any()


def test_project_with_numeric_sources_does_not_keep_excluded_sources(sourced):
    edit_config(sourced, '("eu", "us")[i % 2]', "i % 2 + 3")
    edit_params(sourced, retention__never_keep=["3"])
    state = run(sourced)
    for store in (state.memory(), *state.split("holdouts").values()):
        assert sources(store) == {4}
    assert sources(PreparedData.open(sourced.prepared).train) == {3, 4}


def test_run_with_an_unmatchable_never_keep_value_stops_before_training(sourced):
    edit_params(sourced, retention__never_keep=["eu", 3])
    with pytest.raises(NeverKeepError, match=": 3 cannot match any source"):
        run(sourced)
    assert not sourced.state.exists()


def test_never_keep_params_accept_only_strings_numbers_and_bools(sourced):
    edit_params(sourced, retention__never_keep=["eu", 3, 0.5, True])
    assert Params.load(sourced.params).retention.never_keep == ["eu", 3, 0.5, True]
    edit_params(sourced, retention__never_keep=[["eu"]])
    with pytest.raises(InvalidParamsError, match="never_keep"):
        Params.load(sourced.params)
