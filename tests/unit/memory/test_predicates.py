"""Conditions on metadata: three-valued logic, exact comparison, refusal of invalid text."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from renate_stages.errors import InvalidPredicateError
from renate_stages.memory.predicate import Predicate

COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def rows_of(text: str, metadata: dict, known: dict | None = None) -> list[int]:
    rows = len(next(iter(metadata.values())))
    return Predicate.parse(text).matches(metadata, rows, known).astype(int).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source == 'eu'", [1, 0, 0]),
        ("source != 'eu'", [0, 1, 1]),
        ("not source == 'eu' and age >= 2", [0, 1, 1]),
        ("age < 2 or source in ('uk',)", [1, 0, 1]),
        ("age not in [2]", [1, 0, 1]),
        ("age in ()", [0, 0, 0]),
        ("paid == True", [0, 1, 0]),
        ("paid == 1", [0, 1, 0]),
        ("paid < 0.5", [1, 0, 1]),
        ("age == True", [1, 0, 0]),
        ("unknown == 3", [0, 0, 0]),
        ("not unknown == 3", [0, 0, 0]),
        ("unknown == 3 or age == 1", [1, 0, 0]),
        ("not (unknown == 3 and age == 1)", [0, 1, 1]),
    ],
)
def test_condition_selects_matching_rows(text, expected):
    metadata = {
        "source": np.array([b"eu", b"us", b"uk"], "S32"),
        "age": np.array([1, 2, 3]),
        "paid": np.array([False, True, False]),
    }
    assert rows_of(text, metadata) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age < 18", [1, 0, 0, 0]),
        ("age >= 18", [0, 1, 0, 0]),
        ("not (age >= 18)", [1, 0, 0, 0]),
        ("age != 5", [0, 1, 0, 0]),
        ("age not in (5, 6)", [0, 1, 0, 0]),
        ("age in (5, 6)", [1, 0, 0, 0]),
        ("not age in (5, 6)", [0, 1, 0, 0]),
        ("age < 18 or source == ''", [1, 0, 1, 0]),
        ("age < 18 or source != ''", [1, 1, 0, 0]),
        ("age < 18 and source != ''", [1, 0, 0, 0]),
        ("not (age < 18 and source == '')", [1, 1, 0, 0]),
        ("not not (age < 18)", [1, 0, 0, 0]),
    ],
)
def test_comparison_with_an_unknown_value_is_neither_true_nor_false(text, expected):
    """Row 2 has no age and an empty source, row 3 no source and an age that is not a number."""
    metadata = {
        "age": np.array([5, 20, -1, np.nan]),
        "source": np.array([b"a", b"b", b"", b""], "S32"),
    }
    known = {"age": np.array([1, 1, 0, 1], bool), "source": np.array([1, 1, 1, 0], bool)}
    assert rows_of(text, metadata, known) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "source",
        "source ==",
        "__import__('os')",
        "a.b == 1",
        "f(x) == 1",
        "1 == 1",
        "a == b",
        "source == 'eu' == 'us'",
        "(lambda: 1) == 1",
        "a in 'eu'",
        "a + 1 == 2",
        "a == [1]",
        "a == nan",
        "a == 1e999 - 1e999",
        "a == 10**400",
        "a == 1j",
        "a == None",
        "a == b'eu'",
        "a == 'e\\0u'",
        "a == '\\ud800'",
        "a in {1, 2}",
        "a in ((1,), 2)",
        "a is 1",
        "a == f'{b}'",
        "a == '\ud800'",
        "a == 1\0",
        "not " * 60 + "a == 1",
        "(" * 60 + "a == 1" + " and b == 1)" * 60,
        "(" * 5000 + "a == 1" + ")" * 5000,
        "(a" + " + 1" * 20_000 + ") == 1",
        "a == " + "-" * 20_000 + "1",
        "a == " + "9" * 5000,
        "f(" + "0x" + "f" * 20_000 + ") == 1",
        "a in (" + "1, " * 50_000 + ")",
    ],
)
def test_text_that_is_not_a_condition_is_refused(text):
    with pytest.raises(InvalidPredicateError, match="expected comparisons") as caught:
        Predicate.parse(text)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()  # the message can be printed


def test_python_warning_about_the_users_condition_is_not_shown():
    assert rows_of(r"source == '\d'", {"source": np.array([rb"\d", b"d"], "S32")}) == [1, 0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("age == 'old'", "age has numbers, but is compared with the text 'old'"),
        ("source < 3", "source has texts, but is compared with the number 3"),
        ("source in ('eu', 0x" + "f" * 5000 + ")", "compared with the number of many digits"),
        ("age == 1 and id == 3", "use --ids instead"),
        ("logits == 3", r"logits is an array of shape \(2,\)"),
        ("phase == 3", "phase has values of complex128"),
    ],
)
def test_condition_that_compares_incompatible_types_is_refused(text, problem):
    metadata = {
        "age": np.arange(3),
        "source": np.array([b"eu"] * 3, "S32"),
        "id": np.zeros((3, 2), np.uint64),
        "logits": np.zeros((3, 2)),
        "phase": np.zeros(3, complex),
    }
    with pytest.raises(InvalidPredicateError, match=problem):
        rows_of(text, metadata)


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (np.int64, 2**53 + 1, f"x == {float(2**53)}"),  # NumPy would round the column
        (np.uint64, 2**64 - 1, "x == -1"),
        (np.uint64, 2**64 - 1, f"x == {2.0**64}"),
        (np.int64, 2**63 - 1, f"x < {2.0**63}"),
        (np.int8, 5, "x < 1e999"),
        (np.int8, 5, "x > -1e999"),
        (np.int8, 5, f"x != {10**400}"),
        (np.float64, 1e308, f"x < {10**400}"),
        (np.float64, math.inf, f"x > {10**400}"),
        (np.float64, -math.inf, f"x < -{10**400}"),
        (np.float64, 2.0**53, f"x == {2**53 + 1}"),
        (np.float64, 2.0**53, f"x < {2**53 + 1}"),
        (np.float32, 0.1, "x == 0.1"),
        (np.float16, 65504.0, "x < 65505"),
        (np.bool_, True, "x == 1.0"),
        (np.bool_, True, "x < 300"),
        (np.bool_, False, "x > -1"),
    ],
)
def test_numbers_are_compared_exactly_across_dtypes(dtype, value, text):
    column = np.array([value], dtype)
    expected = eval(text, {"x": column[0].item()})
    assert rows_of(text, {"x": column}) == [int(expected)]


# -- compared with a plain evaluator of single rows ------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.sampled_from([2**53 + 1, 2**63, 2**64 - 1, -(2**63), 10**400, -(10**400)]),
    st.floats(allow_nan=False),
    st.floats(-3, 3).map(lambda each: round(each, 1)),
    st.booleans(),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
DTYPES = [np.bool_, np.int8, np.int32, np.int64, np.uint8, np.uint64]
DTYPES += [np.float16, np.float32, np.float64]


@st.composite
def columns(draw) -> tuple[np.ndarray, np.ndarray]:
    """Return five values, and which of them are known."""
    if draw(st.booleans()):
        column = np.array([each.encode() for each in draw(st.lists(TEXTS, min_size=5, max_size=5))])
        column = column.astype("S32")
    else:
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        if dtype.kind == "f":
            values = st.floats(width=8 * dtype.itemsize)
        elif dtype.kind == "b":
            values = st.booleans()
        else:
            limits = np.iinfo(dtype)
            near = st.sampled_from([limits.min, limits.max, 0, 1])
            values = near | st.integers(int(limits.min), int(limits.max))
        column = np.array(draw(st.lists(values, min_size=5, max_size=5)), dtype)
    return column, np.array(draw(st.lists(st.booleans(), min_size=5, max_size=5)))


@st.composite
def conditions(draw, metadata, depth: int = 0):
    """Return a condition as text and as nested tuples."""
    kind = draw(st.sampled_from(["compare"] if depth > 2 else ["compare", "not", "and", "or"]))
    if kind == "not":
        text, tree = draw(conditions(metadata, depth + 1))
        return f"not ({text})", ("not", tree)
    if kind in ("and", "or"):
        parts = draw(st.lists(conditions(metadata, depth + 1), min_size=2, max_size=3))
        return f" {kind} ".join(f"({text})" for text, _ in parts), (kind, [t for _, t in parts])
    name = draw(st.sampled_from([*metadata, "absent"]))
    constants = TEXTS if name in metadata and metadata[name][0].dtype.kind == "S" else NUMBERS
    if draw(st.booleans()):
        word = draw(st.sampled_from(["in", "not in"]))
        values = draw(st.lists(constants, max_size=4))
        return f"{name} {word} [{', '.join(map(literal, values))}]", (word, name, values)
    word, value = draw(st.sampled_from([*COMPARISONS])), draw(constants)
    return f"{name} {word} {literal(value)}", (word, name, value)


def literal(value) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


def evaluate_row(tree, row) -> bool | None:
    """Return whether a row (its known values by name) fulfils a condition; None if unknown."""
    word = tree[0]
    if word == "not":
        found = evaluate_row(tree[1], row)
        return None if found is None else not found
    if word in ("and", "or"):
        parts = [evaluate_row(each, row) for each in tree[1]]
        decisive = word == "or"
        return decisive if decisive in parts else None if None in parts else not decisive
    _, name, given = tree
    if name not in row:
        return None
    value = row[name]
    if word in ("in", "not in"):
        return (value in given) == (word == "in")
    return COMPARISONS[word](value, given)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_condition_results_match_a_plain_row_by_row_evaluator(data):
    metadata = {name: data.draw(columns()) for name in ("x", "y")}
    text, tree = data.draw(conditions(metadata))
    found = Predicate.parse(text).truth(
        {name: column for name, (column, _) in metadata.items()},
        5,
        {name: known for name, (_, known) in metadata.items()},
    )
    for number in range(5):
        row = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, (column, known) in metadata.items()
            if known[number] and (value := column[number].item()) == value
        }
        expected = evaluate_row(tree, row)
        assert (found.true[number], found.false[number]) == (expected is True, expected is False)


@settings(deadline=None, max_examples=400)
@given(st.text(max_size=60) | st.text("ab01 ()<>=!.,'\"+-*[]notandrin", max_size=60))
@example("a" * 200_000)
@example("a == '" + "x" * 99_000 + "'")
def test_arbitrary_text_is_parsed_or_refused_as_invalid_predicate(text):
    try:
        found = Predicate.parse(text)
    except InvalidPredicateError:
        return
    metadata = {"a": np.arange(3), "b": np.array([b"0", b"", b"a"], "S32")}
    try:
        assert found.matches(metadata, 3).shape == (3,)
    except InvalidPredicateError as error:
        assert "but is compared with the" in str(error)
