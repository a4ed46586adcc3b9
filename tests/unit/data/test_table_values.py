"""What values of tables mean, whatever the file makes of them; faults are refused by name."""

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from renate_stages.data.ingest import ingest
from renate_stages.data.modules.table import Table
from renate_stages.errors import TableError, UserConfigError
from renate_stages.user.named import Named


def written(folder, content, name="a"):
    """Write columns as Parquet, or a text as CSV; return the folder."""
    if isinstance(content, str | bytes):
        text = content.encode() if isinstance(content, str) else content
        (folder / f"{name}.csv").write_bytes(text)
    else:
        table = content if isinstance(content, pa.Table) else pa.table(content)
        parquet.write_table(table, folder / f"{name}.parquet")
    return folder


def csv_of(values, column="x"):
    rows = (f"{value},{'ab'[row % 2]}\n" for row, value in enumerate(values))
    return f"{column},label\n" + "".join(rows)


def read(folder, parent=None, **settings):
    module = Table(folder, **{"target": "label", **settings})
    module.preprocessing = parent
    module.setup()
    return module


LABELS = ["a", "b"]


@pytest.mark.parametrize(
    ("content", "settings", "problem", "cure"),
    [
        (csv_of(['"1,234"', '"2,345.5"']), {}, "numbers with a comma, such as '1,234'", "point"),
        ("x;label\n1,5;a\n", {"delimiter": ";"}, "a comma, such as '1,5'", "thousands separators"),
        ("x;label\n1;a\n", {}, "columns are missing: label", r"delimiter, such as ';'"),
        (csv_of([1, 2, 3, "many"]), {}, "numbers, but not all, such as 'many'", "list it in num"),
        (
            csv_of(["2026-01-01", "2026-01-02", "?"]),
            {},
            "dates, but not all, such as '\\?'",
            "date",
        ),
        (
            csv_of(["31.12.2026", "01.01.2027"]),
            {},
            "not in ISO 8601, such as '31.12.2026'",
            "2026-",
        ),
        (csv_of(["12/31/2026"]), {}, "not in ISO 8601", "write dates as"),
        (
            {"x": [20261231], "label": ["a"]},
            {"date": ["x"]},
            "of kind date, but .* int64",
            "ISO 8601",
        ),
        (
            {"x": [1e18], "y": [1], "label": ["a"]},
            {"id": "x"},
            "above 2\\*\\*53",
            "64-bit integers",
        ),
        ("x,g,label\n1," + "g" * 33 + ",a\n", {"group": "g"}, "longer than 32 bytes", "shorten"),
        ("x,label\n1,0.5\n", {}, "has fractions, such as 0.5", "task: regression"),
        ("x,label\n1,0\n2,1\n3,2\n", {"task": "binary"}, "0 and 1, and also '2'|3 labels", "task"),
        (csv_of([1]), {"exclude": "x"}, "exclude is not a list", r"write exclude: \[x\]"),
        (csv_of([1]), {"delimiter": ";;"}, "delimiter is ';;'", "';'"),
        (",x,label\n0,1,a\n", {}, "a column has no name", "index=False"),
        (
            'x,label\n1,a\n2,"b\n3,c\n',
            {},
            "not closed in the row that begins on line 3",
            "close it",
        ),
        (
            'x,label\n1,a\n"2,b\n3,c\n',
            {},
            "not closed in the row that begins on line 3",
            "close it",
        ),
        ('x,label\n1,"a\n2,b\n3,"c"\n4,d\n', {}, "not closed in the row .* line 2", "close it"),
        (csv_of([1]).encode("utf-16"), {}, "it is UTF-16", "save it as UTF-8"),
        ("größe,label\n1,a\n".encode("latin1"), {}, "names of columns are not UTF-8", "save it"),
        ("", {}, "it is empty", "names of the columns"),
        (
            {"x": [1], "label": [b"a"]},
            {"task": "regression"},
            "type binary, but task is",
            "numbers",
        ),
    ],
)
def test_what_may_be_wrong_is_refused_with_a_cure(tmp_path, content, settings, problem, cure):
    with pytest.raises(TableError, match=f"(?s){problem}.*To fix this: .*{cure}"):
        read(written(tmp_path, content), **settings)


def test_files_that_are_no_tables_are_refused_unless_a_pattern_leaves_them_out(tmp_path):
    written(tmp_path, csv_of([1, 2]))
    for name in ("README.md", ".hidden"):
        (tmp_path / name).touch()
    assert len(read(tmp_path).train_data()) == 2
    (tmp_path / "week.xlsx").touch()
    with pytest.raises(TableError, match=r"week.xlsx cannot be read as a table"):
        read(tmp_path)
    assert len(read(tmp_path, files="*.csv").train_data()) == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([3, None, 4]), ["3", None, "4"]),
        (pa.array([3.0, None, 4.0]), ["3", None, "4"]),
        (pa.array([3.0, np.nan, 12345678.0]), ["3", None, "12345678"]),
        (pa.array([1234567890123.0, 0.5, -0.0]), ["1234567890123", "0.5", "0"]),
        (pa.array([Decimal("3.00"), None, Decimal("4.50")]), ["3", None, "4.5"]),
        (pa.array([Decimal(12345678901234567890)] * 3), ["12345678901234567890"] * 3),
        (pa.array([2**60, 2**60 + 1, 2**60 + 2]), [str(2**60 + n) for n in range(3)]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["True", "FALSE", ""]), ["true", "false", None]),
        (pa.array(["3.0", " 4 ", "NA"]), ["3", "4", None]),
        (pa.array(["007", "1.10", "v3.0"]), ["007", "1.10", "v3.0"]),
        (pa.array(["e\u0301", "\u00e9", "E"]), ["\u00e9", "\u00e9", "E"]),
        (pa.array(["u", None, "v"]).dictionary_encode(), ["u", None, "v"]),
        (pa.array([5, None, 6]).dictionary_encode(), ["5", None, "6"]),
        (pa.array(["u", None, "v"], pa.large_string()), ["u", None, "v"]),
        (pa.array([None, None, None]), [None] * 3),
    ],
)
def test_a_category_has_one_name_whatever_its_type(tmp_path, values, expected):
    table = pa.table({"x": values, "label": list("aba")})
    module = read(written(tmp_path, table), categorical=["x"])
    names = {code: name for name, code in module.preprocessing.categories[0].codes.items()}
    codes = [int(module.train_data()[row][0]["categorical"][0]) for row in range(3)]
    assert [names.get(code) for code in codes] == expected
    assert all(code == 1 for code, name in zip(codes, expected, strict=True) if name is None)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pa.array([1, None], pa.int64()), "numeric", [1, np.nan]),
        (pa.array([1.5, 2.5], pa.float16()), "numeric", [1.5, 2.5]),
        (pa.array([2**64 - 1, 0], pa.uint64()), "numeric", [2.0**64, 0]),
        (pa.array([Decimal("1.25"), None]), "numeric", [1.25, np.nan]),
        (pa.array([5, 6]).dictionary_encode(), "numeric", [5, 6]),
        (pa.array(["+1.5", ""]), "numeric", [1.5, np.nan]),
        (pa.array(["-1e3", ".5"]), "numeric", [-1000, 0.5]),
        (pa.array([True, None]), "boolean", [1, np.nan]),
        (pa.array(["yes", "No"]), "boolean", [1, 0]),
    ],
)
def test_numbers_are_read_from_every_type(tmp_path, values, kind, expected):
    module = read(written(tmp_path, {"x": values, "label": LABELS}))
    assert module.preprocessing.columns == {"x": kind}
    found = [module.train_data()[row][0]["numeric"][0] for row in range(2)]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2026-01-01T00:00:00+02:00", "1960-02-29"], ["2025-12-31T22:00", "1960-02-29T00:00"]),
        (["1969-12-31T12:00:00Z", "20260101"], ["1969-12-31T12:00", "2026-01-01T00:00"]),
        (
            pa.array([-(10**6), 3600 * 10**6], pa.timestamp("us", "Europe/Oslo")),
            ["1969-12-31T23:59:59", "1970-01-01T01:00"],
        ),
        (pa.array([-1, 1], pa.date32()), ["1969-12-31T00:00", "1970-01-02T00:00"]),
    ],
)
def test_dates_are_times_in_utc_also_before_1970(tmp_path, values, expected):
    written(tmp_path, {"t": values, "x": [1, 2], "label": LABELS})
    found = [read(tmp_path, time="t").train_data()[row][2]["time"] for row in range(2)]
    times = [datetime.fromisoformat(each).replace(tzinfo=UTC).timestamp() for each in expected]
    assert found == times


def test_a_boolean_column_may_become_texts_and_numbers(tmp_path):
    parent = read(written(tmp_path, {"x": [True, False], "label": LABELS})).preprocessing
    (tmp_path / "a.parquet").unlink()
    module = read(written(tmp_path, csv_of(["True", "yes", "0", "maybe"])), parent)
    assert [float(module.train_data()[row][0]["numeric"][0]) for row in range(3)] == [1, 1, 0]
    assert [each.reason for each in module.rejected] == ["x is neither true nor false"]


@pytest.mark.parametrize(
    "values", [pd.to_datetime(["2026-01-01"] * 2), [[1], [2]], pa.array([1, 2], pa.time32("s"))]
)
def test_a_column_that_becomes_another_type_is_refused_by_file(tmp_path, values):
    parent = read(written(tmp_path, {"x": [1, 2], "label": LABELS})).preprocessing
    with pytest.raises(TableError, match=r"a.parquet: column 'x' is of kind numeric, but has"):
        read(written(tmp_path, {"x": values, "label": LABELS}), parent)


def test_numbers_with_a_comma_are_a_reason_of_their_own(tmp_path):
    module = read(written(tmp_path, csv_of(["1", '"1,5"', '"1.234,5"', "x"])), numeric=["x"])
    reasons = ["x is a number with a comma"] * 2 + ["x is not a number"]
    assert [each.reason for each in module.rejected] == reasons


def test_files_of_one_update_may_differ_in_form_and_order_of_columns(tmp_path):
    written(tmp_path, {"x": [1.5, 2], "y": [True, False], "label": LABELS})
    written(tmp_path, {"x": pa.array([], pa.float64()), "y": [], "label": []}, "b")
    written(tmp_path, "\ufefflabel,y,x\r\nb,true,3\r\na,,\r\n", "c")
    module = read(tmp_path)
    assert module.preprocessing.columns == {"x": "numeric", "y": "boolean"}
    found = [module.train_data()[row][0]["numeric"].tolist() for row in range(4)]
    np.testing.assert_array_equal(found, [[1.5, 1], [2, 0], [3, 1], [np.nan, np.nan]])


def test_quoted_line_ends_belong_to_the_value_and_rows_are_counted(tmp_path):
    text = 'x,city,label\n1,"Os\nlo",a\n2,Rome\n3,Rome,b\n4,Rome,\n'
    module = read(written(tmp_path, text))
    assert module.preprocessing.categories[0].names == ["Os\nlo", "Rome"]
    assert [each.row for each in module.rejected] == [3, 5]


def test_rejected_rows_add_neither_categories_nor_labels(tmp_path):
    text = "x,city,label\n1,Oslo,a\nmany,Atlantis,mermaid\n2,Bonn,\n3,Rome,b\n"
    module = read(written(tmp_path, text), numeric=["x"])
    assert module.preprocessing.categories[0].names == ["Oslo", "Rome"]
    assert module.label_order == ("a", "b")


def test_labels_have_one_name_in_all_files(tmp_path):
    written(tmp_path, {"x": [1, 2], "label": [3, 4]})
    written(tmp_path, "x,label\n1,3.0\n2,\n", "b")
    module = read(tmp_path)
    assert module.label_order == ("3", "4")
    assert [module.train_data()[row][1] for row in range(3)] == ["3", "4", "3"]


def test_codes_do_not_depend_on_the_size_of_blocks(tmp_path, monkeypatch):
    written(tmp_path, {"x": list("dcbadcba"), "label": LABELS * 4})
    names = read(tmp_path).preprocessing.categories[0].names
    monkeypatch.setattr("renate_stages.data.modules.table_files.ROWS", 3)
    assert read(tmp_path).preprocessing.categories[0].names == names == list("dcba")


def test_metadata_that_a_row_must_have_is_a_reason_to_reject_it(tmp_path):
    text = "x,k,g,t,label\n1,u,1,5,a\n2,,1,5,a\n3,u,,5,a\n4,u,1,,b\n"
    module = read(written(tmp_path, text), id="k", group="g", time="t")
    assert [each.reason for each in module.rejected] == [f"{n} is missing" for n in "kgt"]
    assert module.train_data()[0][2] == {"id": "u", "group": "1", "time": 5.0}


def test_times_and_metadata_have_one_form_in_all_files(tmp_path):
    written(tmp_path, "x,t,label\n1,5,a\n")
    written(tmp_path, "x,t,label\n1,2026-01-01,a\n", "b")
    with pytest.raises(TableError, match=r"b.csv: column 't' has dates, but numbers in a.csv"):
        read(tmp_path, time="t")
    for path in tmp_path.iterdir():
        path.unlink()
    written(tmp_path, {"x": [1], "m": [5], "label": ["a"]})
    written(tmp_path, "x,m,label\n1,6,a\n", "b")
    with pytest.raises(TableError, match=r"b.csv: column 'm' has texts, but numbers in a"):
        read(tmp_path, metadata=["m"])


def test_a_setting_that_does_not_exist_is_refused_by_name():
    named = Named(module="table", arguments={"target": "y", "wieght": "w"})
    with pytest.raises(UserConfigError, match="table has no setting 'wieght'"):
        named.functions(lambda: None)


# -- precision and twins --------------------------------------------------------------------------


def figures_of(folder, columns):
    module = read(written(folder, {**columns, "label": LABELS * 50}))
    return module.preprocessing.fit(
        ingest(
            module.train_data(),
            folder / "store",
            1,
            "train",
            numbers=lambda n: np.asarray(int(n == "b")),
        )
    )


def test_numbers_that_float32_does_not_keep_are_named(tmp_path):
    seconds = 1.7e9 + np.arange(100)
    columns = {"seconds": seconds, "days": seconds / 86400, "large": seconds * 1e6}
    columns |= {"equal": np.full(100, 2**40 + 1), "small": np.arange(100.0)}
    found = figures_of(tmp_path, columns)["low_precision_in_steps_of"]
    assert found == {"seconds": 128.0, "days": 2.0**-9, "equal": 2.0**17, "large": found["large"]}
    stored = np.unique(seconds.astype(np.float32))
    assert found["seconds"] == np.diff(stored).min()


def test_categories_that_differ_only_in_case_or_spaces_are_counted(tmp_path):
    cities = ["Oslo", "OSLO", "New  York", "New York", "Rome"] * 20
    assert figures_of(tmp_path, {"city": cities})["differ_only_in_case"] == {"city": 4}
