"""`Table` reads CSV, Parquet and DataFrames: kinds of columns, targets, metadata, rejected rows."""

import gzip
import string
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renate_stages.data.modules.table import Table
from renate_stages.errors import AllRowsRejectedError, ChangedPreprocessingError, TableError
from renate_stages.export.raw_rows import card_sections
from renate_stages.preprocessing.table import TablePreprocessing
from renate_stages.scenarios import build_scenario

ROWS = 40


def customers(rows=ROWS, **columns):
    rng = np.random.default_rng(0)
    start = date(2026, 1, 1)
    return pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows),
            "city": rng.choice(["Oslo", "Rome"], rows),
            "member": rng.choice([True, False], rows),
            "since": [start + timedelta(days=n) for n in range(rows)],
            "label": rng.choice(["stays", "leaves"], rows),
        }
        | columns
    )


def read(folder, **settings):
    module = Table(folder, **{"target": "label", **settings})
    module.setup()
    return module


def test_kinds_of_columns_are_found_by_their_values(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    module = read(tmp_path)
    kinds = {"age": "numeric", "city": "categorical", "member": "boolean", "since": "date"}
    assert module.preprocessing.columns == kinds
    assert module.categorical_features == ("city",)
    assert module.label_order == ("leaves", "stays")


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "parquet"])
def test_every_form_of_file_gives_the_same_examples(tmp_path, form):
    frame = customers()
    expected = Table(tmp_path, target="label", frame=frame)
    expected.setup()
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        frame.to_parquet(path, index=False)
    else:
        text = frame.to_csv(index=False, sep="\t" if form == "tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    module = read(tmp_path)
    for row in range(ROWS):
        (inputs, target), (others, other) = (m.train_data()[row] for m in (module, expected))
        assert target == other
        np.testing.assert_array_equal(inputs["numeric"], others["numeric"])
        np.testing.assert_array_equal(inputs["categorical"], others["categorical"])


def test_numbers_are_those_of_pandas_and_missing_ones_are_nan(tmp_path):
    frame = customers()
    frame.loc[[3, 7], "age"] = np.nan
    frame.loc[5, "city"] = None
    frame.to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path).train_data()
    ages = np.array([data[row][0]["numeric"][0] for row in range(ROWS)])
    np.testing.assert_array_equal(ages, frame["age"].to_numpy(np.float32))
    codes = [int(data[row][0]["categorical"][0]) for row in range(ROWS)]
    order = {name: code for code, name in enumerate(frame["city"].dropna().unique(), start=2)}
    assert codes == frame["city"].map(order).fillna(1).astype(int).tolist()


def test_dates_become_days_and_places_in_week_and_year(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    module = read(tmp_path)
    names = module.preprocessing.feature_names
    numbers = module.train_data()[3][0]["numeric"]  # 2026-01-04, a Sunday
    assert numbers[names.index("since (days)")] == (date(2026, 1, 4) - date(1970, 1, 1)).days
    angle = 2 * np.pi * 6 / 7
    found = [numbers[names.index(f"since (week_{each})")] for each in ("sin", "cos")]
    np.testing.assert_allclose(found, [np.sin(angle), np.cos(angle)], atol=1e-3)
    assert module.excluded_features == tuple(each for each in names if each.startswith("since"))


def test_rows_that_cannot_be_read_are_rejected_by_file_and_row(tmp_path):
    lines = [
        "age,city,label",
        "1,Oslo,a",
        "2,Rome",
        "x,Oslo,a",
        "3,Rome,",
        "1e400,Oslo,b",
        "4,Oslo,b",
    ]
    text = "\n".join(lines).encode() + b"\n5,\xff\xfe,a\n6,Rome,a\n"
    (tmp_path / "week.csv").write_bytes(text)
    module = read(tmp_path, numeric=["age"])
    assert len(module.train_data()) == 3
    assert module.rows_seen == 8
    assert {(each.row, each.reason) for each in module.rejected} == {
        (3, "the row has 2 columns, expected 3"),
        (4, "age is not a number"),
        (5, "the target label is missing"),
        (6, "age is infinite or too large"),
        (8, "city is not UTF-8"),
    }
    assert {each.file for each in module.rejected} == {"week.csv"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_weights_are_kept_beside_the_inputs_and_unusable_ones_reject_their_row(tmp_path, form):
    weights = [2, 0, None, -1, 1e-30, 1e30, float("inf"), 0.25]
    frame = customers(8, w=weights)
    write = getattr(frame, f"to_{form}")
    write(tmp_path / f"a.{form}", index=False)
    module = read(tmp_path, weight="w")
    data, first = module.train_data(), 2 if form == "csv" else 1
    assert [data[row][2] for row in range(len(data))] == [{"weight": w} for w in (2, 0, 0.25)]
    assert "w" not in module.preprocessing.columns and "w" not in module.feature_names
    expected = "expected 0, or a number from 1e-20 to 1e+20"
    assert {each.row - first: each.reason for each in module.rejected} == {
        2: "w is missing",
        3: f"w is negative, {expected}",
        4: f"w is too small or too large, {expected}",
        5: f"w is too small or too large, {expected}",
        6: "w is not a number" if form == "csv" else "w is infinite or too large",
    }
    encoded = module.preprocessing.encode(frame.drop(columns=["w", "label"]))
    np.testing.assert_array_equal(encoded["numeric"][7], data[2][0]["numeric"])


def test_weight_column_may_be_renamed_or_missing_as_others(tmp_path):
    customers(importance=1.5).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match="columns are missing: w"):
        read(tmp_path, weight="w")
    module = read(tmp_path, weight="w", rename={"importance": "w"})
    assert module.train_data()[3][2] == {"weight": 1.5}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"weight": "age", "numeric": ["age"]}, "'age' is the weight, and listed again"),
        ({"weight": "label"}, "'label' is the weight, and listed again"),
        ({"weight": "member"}, r"column 'member' \(weight\) has values of type bool"),
        ({"metadata": ["weight"]}, "the name 'weight' is listed in metadata"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(tmp_path, settings, problem):
    customers(weight=70.5).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=f"(?s){problem}.*To fix this"):
        read(tmp_path, **settings)


def test_input_of_earlier_updates_is_refused_as_weight(tmp_path):
    customers().to_parquet(tmp_path / "a.parquet")
    known, module = read(tmp_path).preprocessing, Table(tmp_path, target="label", weight="age")
    module.preprocessing = known
    with pytest.raises(ChangedPreprocessingError, match="column 'age' was an input"):
        module.setup()


def test_metadata_columns_keep_their_roles(tmp_path):
    frame = customers(account=[f"c{n}" for n in range(ROWS)], region=["eu", "us"] * (ROWS // 2))
    frame.to_csv(tmp_path / "a.csv", index=False)
    module = read(tmp_path, id="account", source="region", time="since", metadata=["city"])
    inputs, _, metadata = module.train_data()[1]
    seconds = (date(2026, 1, 2) - date(1970, 1, 1)).days * 86400.0
    assert metadata == {"id": "c1", "source": "us", "time": seconds, "city": frame["city"][1]}
    assert set(module.preprocessing.columns) == {"age", "member"}
    assert "categorical" not in inputs


@pytest.mark.parametrize(
    ("task", "values", "expected"),
    [
        ("auto", [3, 1, 2, 3], ["3", "1", "2", "3"]),
        ("classification", [True, False, True, True], ["true", "false", "true", "true"]),
        ("binary", [1, 0, 1, 1], [1, 0, 1, 1]),
        ("regression", [1.5, 2, -3, 0], [1.5, 2, -3, 0]),
    ],
)
def test_the_task_decides_what_targets_are(tmp_path, task, values, expected):
    pd.DataFrame({"x": [1, 2, 3, 4], "label": values}).to_parquet(tmp_path / "a.parquet")
    data = read(tmp_path, task=task).train_data()
    assert [data[row][1] for row in range(4)] == expected


def test_numbers_as_labels_are_ordered_by_value(tmp_path):
    pd.DataFrame({"x": range(4), "label": [10, 9, 2, -1]}).to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path).label_order == ("-1", "2", "9", "10")


def test_several_targets_are_numbers(tmp_path):
    frame = pd.DataFrame({"x": range(3), "a": [0, 1, 2], "b": [1, 0, 1]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    module = read(tmp_path, target=["a", "b"], task="multilabel")
    assert [module.train_data()[row][1].tolist() for row in range(2)] == [[0, 1], [1, 0]]
    assert [each.reason for each in module.rejected] == ["the target a is neither 0 nor 1"]


@pytest.mark.parametrize(
    ("frame", "settings", "problem"),
    [
        ({"x": [1], "label": [0.5]}, {}, "has fractions, such as 0.5"),
        ({"x": range(60), "label": range(60)}, {}, "60 different whole numbers"),
        ({"x": [1], "y": [1]}, {}, "columns are missing: label"),
        ({"x": [None], "label": ["a"]}, {}, "it has no value, so its kind is unknown"),
        ({"x": [[1, 2]], "label": ["a"]}, {}, "values of type list"),
        ({"label": ["a"]}, {}, "no column is an input"),
        ({"x": [1], "label": ["a"]}, {"exclude": ["label"]}, "is a target, and listed again"),
        ({"x": [1], "label": ["a"]}, {"numeric": ["x"], "exclude": ["x"]}, "more than once"),
        ({"x": [1], "label": ["a"]}, {"target": ["label"]}, "task is auto"),
        ({"x": [], "label": []}, {}, "there is no row"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_a_cure(tmp_path, frame, settings, problem):
    pd.DataFrame(frame).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=f"(?s){problem}.*To fix this"):
        read(tmp_path, **settings)


def test_test_data_may_be_in_files_of_its_own_and_setup_may_be_repeated(tmp_path):
    customers().to_csv(tmp_path / "train.csv", index=False)
    customers(20, label=None).fillna({"label": "x"}).to_csv(tmp_path / "test.csv", index=False)
    module = read(tmp_path, test_files="test*")
    module.setup()
    assert (len(module.train_data()), len(module.test_data()), module.rows_seen) == (ROWS, 20, 60)
    assert module.label_order == ("leaves", "stays", "x")


def test_texts_that_differ_in_most_rows_are_no_categories(tmp_path):
    frame = customers(200, note=[f"note {n}" for n in range(200)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(TableError, match="200 different texts, such as 'note 0'"):
        read(tmp_path)
    assert "note" not in read(tmp_path, exclude=["note"]).preprocessing.columns


def test_damaged_files_are_refused_by_name(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(TableError, match=r"a\.parquet: "):
        read(tmp_path)
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "b.csv").write_text("x,x\n1,2\n")
    with pytest.raises(TableError, match=r"b.csv: two columns are called 'x'"):
        read(tmp_path)


def test_files_with_other_columns_are_refused(tmp_path):
    pd.DataFrame({"x": [1], "label": ["a"]}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"z": [1], "label": ["a"]}).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(TableError, match=r"b.csv: its columns differ from those of a.csv: x, z"):
        read(tmp_path)


# -- later updates ------------------------------------------------------------------------------


def next_update(folder, parent, frame, **settings):
    for path in folder.iterdir():
        path.unlink()
    frame.to_csv(folder / "a.csv", index=False)
    module = Table(folder, target="label", **settings)
    fitted = parent.preprocessing
    module.preprocessing = TablePreprocessing.from_content(fitted.content(), folder)
    module.setup()
    return module


def test_new_categories_get_codes_after_the_old_ones(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    first = read(tmp_path)
    frame = customers(city=["Bonn", "Rome"] * (ROWS // 2))
    later = next_update(tmp_path, first, frame)
    old = first.preprocessing.categories[0]
    assert later.preprocessing.categories[0].names == [*old.names, "Bonn"]
    codes = [int(later.train_data()[row][0]["categorical"][0]) for row in range(2)]
    assert codes == [4, old.codes["Rome"]]


def test_a_renamed_column_is_refused_and_then_mapped_by_a_setting(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    first, frame = read(tmp_path), customers().rename(columns={"city": "town"})
    problem = (
        r"columns are missing: city, and there are new ones: town.*rename, such as \{town: city\}"
    )
    with pytest.raises(TableError, match=f"(?s){problem}"):
        next_update(tmp_path, first, frame)
    (tmp_path / "a.csv").unlink()
    frame.to_parquet(tmp_path / "a.parquet")  # of which only the columns that are needed are read
    again = Table(tmp_path, target="label")
    again.preprocessing = first.preprocessing
    with pytest.raises(TableError, match=f"(?s){problem}"):
        again.setup()
    later = next_update(tmp_path, first, frame, rename={"town": "city"})
    assert later.preprocessing.columns == first.preprocessing.columns


def test_raw_rows_may_have_the_names_of_any_update(tmp_path):
    frame = customers()
    frame.to_csv(tmp_path / "a.csv", index=False)
    first = read(tmp_path)
    assert "other_names" not in first.preprocessing.content()
    second, third = frame.rename(columns={"age": "years"}), frame.rename(columns={"age": "jahre"})
    rename = {"years": "age", "answer": "label"}  # a target is no raw column
    later = next_update(tmp_path, first, second, rename=rename)
    latest = next_update(tmp_path, later, third.copy(), rename={"jahre": "age"})
    last = next_update(tmp_path, latest, frame)  # without rename, nothing is lost
    fitted = last.preprocessing
    assert fitted.content()["other_names"] == {"years": "age", "jahre": "age"}
    assert {each.name: each.other_names for each in fitted.raw_columns}["age"] == ("jahre", "years")
    expected = fitted.encode(frame)
    for rows in (second, third, pa.Table.from_pandas(third), third.to_dict("list")):
        found = fitted.encode(rows)
        assert found.keys() == expected.keys()
        for part, values in expected.items():
            np.testing.assert_array_equal(found[part], values)
    for rows in (second.assign(age=1.0), second.assign(jahre=1.0)):
        with pytest.raises(TableError, match=r"names of the same input, 'age'.\nTo fix .* one"):
            fitted.encode(rows)
    assert "| `age`, or `jahre` or `years` | number | yes |" in card_sections(fitted)[0]


def test_a_name_gets_its_latest_meaning_and_never_two_at_once(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    first, frame = read(tmp_path), customers().rename(columns={"city": "town"})
    later = next_update(tmp_path, first, frame, rename={"town": "city"})
    frame = customers().rename(columns={"label": "town"})
    last = next_update(tmp_path, later, frame, rename={"town": "label"})
    assert last.preprocessing.other_names.known == {}
    assert len(last.preprocessing.encode(frame)["categorical"]) == ROWS
    swapped = customers().rename(columns={"city": "member", "member": "city"})
    problem = "calls 'city' of the files 'member', but 'city' is an input too"
    with pytest.raises(TableError, match=f"(?s){problem}.*To fix this"):
        next_update(tmp_path, first, swapped, rename={"city": "member", "member": "city"})
    content = first.preprocessing.content()
    for wrong in ({"town": "street"}, {"age": "city"}, ["town"]):
        with pytest.raises(ValueError, match="name"):
            TablePreprocessing.from_content({**content, "other_names": wrong}, tmp_path)


def test_columns_that_are_new_are_ignored(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    later = next_update(tmp_path, read(tmp_path), customers(height=1.0))
    assert "height" not in later.preprocessing.columns


def test_settings_that_change_the_inputs_are_refused(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    first = read(tmp_path)
    with pytest.raises(ChangedPreprocessingError, match=r"'age' is categorical, but .* numeric"):
        next_update(tmp_path, first, customers(), categorical=["age"])
    with pytest.raises(ChangedPreprocessingError, match="'city' was an input"):
        next_update(tmp_path, first, customers(), exclude=["city"])


cells = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.text(string.printable + "äß漢\u0000", max_size=8),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(cells, cells, st.sampled_from(["a", "b", "", None])), min_size=1))
def test_any_table_is_read_whole_or_refused_by_name(tmp_path, rows):
    frame = pd.DataFrame([[str(c) if c is not None else c for c in row] for row in rows])
    frame.columns = ["x", "z", "label"]
    frame.to_csv(tmp_path / "a.csv", index=False)
    try:
        module = read(tmp_path, numeric=["x"], categorical=["z"])
    except (AllRowsRejectedError, TableError) as error:
        assert "To fix this" in str(error)
        return
    data = module.train_data()
    assert len(data) + len(module.rejected) == module.rows_seen
    for row in range(len(data)):
        numbers = data[row][0]["numeric"]
        assert np.isnan(numbers).any() or np.isfinite(numbers).all()


def test_a_scenario_over_a_table_keeps_what_is_fitted(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    scenario = build_scenario("iid", Table(tmp_path, "label"), 0, 0, {"num_tasks": 2})
    scenario.setup()
    assert len(scenario.train_data()) == ROWS // 2
    assert scenario.preprocessing.columns["age"] == "numeric"
    assert scenario.label_order == ("leaves", "stays")
    assert (scenario.rows_seen, list(scenario.rejected)) == (ROWS, [])


def test_the_index_that_pandas_writes_is_no_input(tmp_path):
    customers()[::2].to_parquet(tmp_path / "a.parquet")
    assert set(read(tmp_path).preprocessing.columns) == {"age", "city", "member", "since"}


def test_kinds_of_columns_are_summarized(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    expected = "input columns: numeric age; categorical city; boolean member; date since"
    assert read(tmp_path).preprocessing.summary() == expected


def test_rows_of_a_split_that_cannot_be_read_are_counted_among_all(tmp_path):
    customers().to_csv(tmp_path / "a.csv", index=False)
    customers(3, label=[None] * 3).to_csv(tmp_path / "test.csv", index=False)
    module = Table(tmp_path, "label", test_files="test*.csv")
    with pytest.raises(
        AllRowsRejectedError, match=r"test\.csv, row 2: the target label is missing"
    ) as raised:
        module.setup()
    assert (len(raised.value.rejected), raised.value.rows) == (3, ROWS + 3)
