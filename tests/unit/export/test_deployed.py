"""`DeployedModel`: predictions from raw rows, compared with formulas written here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax
from torch import nn

from renate_stages import errors
from renate_stages.data import Batched
from renate_stages.data.stored import preprocessed
from renate_stages.export.deployed import DeployedModel
from renate_stages.models import MLP, RenateWrapper
from renate_stages.models.tabular_mlp import TabularMLP
from renate_stages.models.text_cnn import TextCNN
from renate_stages.preprocessing.table import TablePreprocessing
from renate_stages.preprocessing.text import TextPreprocessing

NAMES = ("boat", "car", "train")


@pytest.fixture
def table() -> DeployedModel:
    """A model of a table with one number (mean 40, scale 10), one category and one boolean."""
    fitted = TablePreprocessing({"age": "numeric", "city": "categorical", "member": "boolean"})
    age, member = fitted.values
    age.mean, age.scale, member.mean, member.scale = 40.0, 10.0, 0.5, 0.5
    for name in ("Oslo", "Rome"):
        fitted.categories[0].add(name)
    fitted.categories[0].trained = [True, True, True]
    torch.manual_seed(0)
    model = TabularMLP(**fitted.sizes(), num_outputs=3, hidden_size=8).eval()
    return DeployedModel(model, fitted, preprocessed(fitted), "classification", NAMES)


FRAME = pd.DataFrame(
    {
        "age": [31.0, None, 55.5, 40.0],
        "city": ["Oslo", "Rome", "Atlantis", None],
        "member": [True, None, False, True],
        "other": range(4),
    },
    index=["a", "b", "c", "d"],
)
INPUTS = {  # what the model must get for FRAME, computed by hand
    "numeric": torch.tensor([[-0.9, 1.0], [0.0, 0.0], [1.55, -1.0], [0.0, 1.0]]),
    "missing": torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
    "categorical": torch.tensor([[2], [3], [0], [1]]),  # Atlantis: unknown; None: missing
}


def expected_outputs(model, inputs) -> np.ndarray:
    with torch.no_grad():
        return model(inputs).double().numpy()


def test_table_predictions_are_the_softmax_of_the_outputs_for_inputs_made_by_hand(table):
    found = table.predict(FRAME)
    expected = softmax(expected_outputs(table.model, INPUTS), axis=1)
    assert list(found.columns) == ["prediction", *(f"probability_{name}" for name in NAMES)]
    np.testing.assert_allclose(found.iloc[:, 1:], expected, rtol=1e-6)
    assert found["prediction"].tolist() == [NAMES[c] for c in expected.argmax(axis=1)]
    assert list(found.index) == ["a", "b", "c", "d"], "the index of the rows is kept"


def test_every_form_of_a_table_gives_the_same_predictions(table):
    import pyarrow as pa

    expected = table.predict(FRAME).reset_index(drop=True)
    records = [
        {name: None if pd.isna(cell) else cell for name, cell in row.items()}
        for row in FRAME.to_dict("records")
    ]
    columns = {name: [row[name] for row in records] for name in FRAME}
    for rows in (records, columns, pa.Table.from_pandas(FRAME)):
        pd.testing.assert_frame_equal(table.predict(rows), expected)


@pytest.mark.parametrize(
    ("rows", "excerpt"),
    [
        ({"age": [1.0], "city": ["Oslo"]}, r"columns are missing: member\.\nTo .*a value, or null"),
        (
            {"age": [1.0], "city": ["Oslo"], "since": [1], "premium": [True]},
            "missing: member, and there are others: since, premium.*another name, rename it",
        ),
        ({"age": [1, "old"], "city": ["x"] * 2, "member": [True] * 2}, "rows: .*To fix this: give"),
        ({"age": ["1", "old"], "city": ["x"] * 2, "member": [1, 0]}, "row 1: age is not a number"),
        ({"age": [1], "city": ["x"], "member": ["maybe"]}, "row 0: member is neither true nor"),
        ([], "there is no row"),
        (FRAME[:0].drop(columns="city"), "columns are missing: city"),
        ("Oslo", "found a str"),
    ],
)
def test_rows_that_cannot_be_read_are_refused_with_row_and_reason(table, rows, excerpt):
    with pytest.raises((errors.TableError, errors.NoPredictionsError), match=f"(?s){excerpt}"):
        table.predict(rows)


def test_tables_without_rows_get_no_predictions_but_their_columns(table):
    import pyarrow as pa

    expected = table.predict(FRAME)[:0]
    for rows in (FRAME[:0], FRAME[:0].astype(float), {name: [] for name in FRAME}):
        found = table.predict(rows)
        assert list(found.columns) == list(expected.columns) and not len(found)
        assert (found.dtypes == expected.dtypes).all()
    assert table.outputs(pa.Table.from_pandas(FRAME[:0])).shape == (0, 3)
    texts = pd.Series([], dtype=object)
    for rows in (texts, pd.DataFrame({"text": texts})):
        found = texts_model().predict(rows)
        assert list(found) == ["prediction", "probability_billing", "probability_delivery"]
        assert not len(found)


def texts_model() -> DeployedModel:
    fitted = TextPreprocessing(words=["parcel", "late", "invoice", "wrong"])
    torch.manual_seed(0)
    model = TextCNN(
        fitted.sizes()["vocab_size"], num_outputs=2, embedding_size=6, num_filters=4
    ).eval()
    return DeployedModel(
        model, fitted, preprocessed(fitted), "classification", ("billing", "delivery")
    )


TEXTS = ["The parcel is late", "", "invoice wrong " * 20, "Wrong PARCEL", "ни слова"]


def test_text_predictions_are_those_of_token_ids_made_by_hand():
    model = texts_model()
    ids = [[1, 2, 1, 3], [], [4, 5] * 20, [5, 2], [1, 1]]  # 1: unknown, from 2 on: words in order
    for text, row in zip(TEXTS, ids, strict=True):
        inputs = {
            "input_ids": torch.tensor([row or [0]]),
            "attention_mask": torch.tensor([[1] * len(row) or [0]]),
        }
        expected = softmax(expected_outputs(model.model, inputs)[0])
        found = model.predict([text])
        np.testing.assert_allclose(found.iloc[0, 1:].astype(float), expected, rtol=1e-5)
    series = pd.Series(TEXTS, index=list("abcde"))
    assert list(model.predict(series).index) == list("abcde")
    with pytest.raises(errors.TextRowError, match="row 1: found int"):
        model.predict(["late", 3])
    with pytest.raises(errors.TextRowError, match="found one str"):
        model.predict("late")


@pytest.mark.parametrize("size", [1, 2, 3, 256])
def test_batch_size_does_not_change_predictions(table, size):
    for model, rows in ((table, FRAME), (texts_model(), TEXTS)):
        one, other = model.outputs(rows, batch_size=size), model.outputs(rows)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def plain(task, labels=(), outputs=1, transform=None) -> DeployedModel:
    torch.manual_seed(0)
    model = MLP(num_inputs=4, num_outputs=outputs, hidden_size=5).eval()
    return DeployedModel(model, None, transform, task, labels)


ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.mark.parametrize("rows", [ROWS, torch.from_numpy(ROWS)])
def test_model_without_preprocessing_takes_stored_inputs_and_applies_the_test_transform(rows):
    model = plain("regression", transform=Batched(lambda batch: batch / 2))
    expected = expected_outputs(model.model, torch.from_numpy(ROWS / 2))
    found = model.predict(rows)
    assert list(found.columns) == ["prediction"]
    np.testing.assert_allclose(found["prediction"], expected[:, 0])


def test_binary_probabilities_are_the_sigmoid_of_the_logit():
    model = plain("binary", ("no", "yes"))
    positive = expit(expected_outputs(model.model, torch.from_numpy(ROWS))[:, 0])
    found = model.predict(ROWS)
    np.testing.assert_allclose(found["probability_yes"], positive)
    np.testing.assert_allclose(found["probability_no"], 1 - positive)
    assert found["prediction"].tolist() == ["yes" if p > 0.5 else "no" for p in positive]
    assert set(found["prediction"]) == {"no", "yes"}, "the rows show both"


def test_several_labels_per_row_have_a_prediction_and_a_probability_each():
    model = plain("multilabel", ("red", "big"), outputs=2)
    found, chance = (
        model.predict(ROWS),
        expit(expected_outputs(model.model, torch.from_numpy(ROWS))),
    )
    for column, name in enumerate(("red", "big")):
        np.testing.assert_allclose(found[f"probability_{name}"], chance[:, column])
        assert (
            found[f"prediction_{name}"].tolist() == (chance[:, column] > 0.5).astype(int).tolist()
        )


def test_several_values_per_row_are_numbered_columns():
    model = plain("regression", outputs=3)
    expected = expected_outputs(model.model, torch.from_numpy(ROWS))
    found = model.predict(ROWS)
    assert list(found.columns) == ["prediction_0", "prediction_1", "prediction_2"]
    np.testing.assert_allclose(found, expected)


def test_outputs_without_a_label_never_share_a_name_with_one():
    """A label may be called 1; with two outputs, the second would have that name too."""
    found = plain("classification", ("1",), outputs=2).predict(ROWS)
    assert list(found.columns) == ["prediction", "probability_1", "probability_output 1"]
    numbers = plain("classification", outputs=2).predict(ROWS)
    assert list(numbers.columns) == ["prediction", "probability_0", "probability_1"]


@pytest.mark.parametrize(
    ("rows", "excerpt"),
    [
        (FRAME, "found a DataFrame, but the model has no preprocessing"),
        ([[1.0, 2.0]], "found a list, but the model has no preprocessing"),
        ({"a": ROWS, "b": ROWS[:2]}, "its parts have 2, 6 rows"),
        (ROWS[:0], "there is no row"),
    ],
)
def test_rows_that_are_not_stored_inputs_are_refused(rows, excerpt):
    with pytest.raises(errors.NoPredictionsError, match=excerpt):
        plain("regression").predict(rows)


class Shaped(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, rows):
        return self.change(rows)


@pytest.mark.parametrize(
    ("task", "change", "excerpt"),
    [
        ("tokens", lambda rows: rows.reshape(-1, 2, 2), r"shape \(6, 2, 2\)"),
        ("classification", lambda rows: rows[:, 0], r"shape \(6,\)"),
        ("binary", lambda rows: rows[:, :2], r"shape \(6, 2\)"),
        ("regression", lambda rows: (rows, rows), "returns a tuple, not one tensor"),
        ("regression", lambda rows: rows / (rows != rows[4, 2]), "row 4 are not finite"),
    ],
)
def test_outputs_that_are_not_predictions_are_refused(task, change, excerpt):
    model = DeployedModel(RenateWrapper(Shaped(change)), None, None, task, ())
    with pytest.raises(errors.NoPredictionsError, match=excerpt):
        model.predict(ROWS)
