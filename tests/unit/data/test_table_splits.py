"""Splits of the rows of a table by the rules of `data.split`."""

import numpy as np
import pandas as pd
import pytest

from renate_stages.data.modules.table import Table
from renate_stages.data.splits import split_off
from renate_stages.errors import DataModuleError
from renate_stages.randomness import Generators

ROWS = 60


def table(folder, **settings):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": np.arange(ROWS, dtype=float),
            "customer": [f"c{n}" for n in rng.integers(0, 12, ROWS)],
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.permutation(ROWS), unit="D"),
            "label": rng.choice(["a", "b", "c"], ROWS, p=[0.6, 0.3, 0.1]),
            "y": rng.normal(size=ROWS),
        }
    )
    settings = {"target": "label", "exclude": ["y"], "group": "customer", "time": "day"} | settings
    frame.to_csv(folder / "a.csv", index=False)
    module = Table(folder, **settings)
    module.setup()
    return frame, module.train_data()


def rows_of(split):
    return [int(split[row][0]["numeric"][0]) for row in range(len(split))]


def test_a_stratified_split_has_the_share_of_each_label(tmp_path):
    frame, data = table(tmp_path)
    train, parts = split_off(data, {"test": 0.25}, Generators(0, 1), "stratified")
    assert sorted(rows_of(train) + rows_of(parts["test"])) == list(range(ROWS))
    counts = frame["label"][rows_of(parts["test"])].value_counts()
    for label, rows in frame["label"].value_counts().items():
        assert abs(counts[label] - rows / 4) <= 1


def test_the_newest_rows_are_those_with_the_latest_dates(tmp_path):
    frame, data = table(tmp_path)
    train, parts = split_off(data, {"test": 0.2}, Generators(0, 1), "newest", "time")
    assert frame["day"][rows_of(parts["test"])].min() > frame["day"][rows_of(train)].max()


def test_a_group_is_in_one_split_in_each_form_of_file(tmp_path):
    frame, data = table(tmp_path)
    train, parts = split_off(data, {"test": 0.3}, Generators(0, 1), "grouped", "group")
    groups = [set(frame["customer"][rows_of(each)]) for each in (train, parts["test"])]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
    same = Table(tmp_path, target="label", exclude=["y", "day"], group="customer", frame=frame)
    same.setup()
    again = split_off(same.train_data(), {"test": 0.3}, Generators(0, 1), "grouped", "group")[1]
    assert rows_of(again["test"]) == rows_of(parts["test"])


def test_numbers_have_no_labels_to_stratify_by(tmp_path):
    _, data = table(tmp_path, target="y", exclude=["label"], task="regression")
    with pytest.raises(DataModuleError, match="stratified needs one label for each row"):
        split_off(data, {"test": 0.2}, Generators(0, 1), "stratified")
