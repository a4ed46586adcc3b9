"""`TablePreprocessing`: means and scales, codes that only grow, raw rows, files."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from renate_stages.data.ingest import ingest
from renate_stages.data.modules.table import Table
from renate_stages.data.stored import StoredDataset, preprocessed
from renate_stages.errors import MalformedFileError, TableError
from renate_stages.preprocessing import read_preprocessing
from renate_stages.preprocessing.table import TablePreprocessing


def frame_of(rows=200, cities=("Oslo", "Rome"), seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(4000, 3, rows),
            "income": np.exp(rng.normal(8, 2, rows)),
            "city": rng.choice(cities, rows),
            "y": rng.normal(size=rows),
        }
    )


def ingested(frame, folder, parent=None, **settings):
    module = Table(folder, target="y", task="regression", frame=frame, **settings)
    module.preprocessing = parent
    module.setup()
    return module, ingest(module.train_data(), folder / "store", 1, "train")


def inputs_of(store, fitted):
    dataset = StoredDataset(store, None, preprocessed(fitted))
    return dataset.__getitems__(range(len(dataset)))[0]


def test_numbers_are_scaled_as_by_scikit_learn(tmp_path):
    frame = frame_of()
    module, store = ingested(frame, tmp_path)
    module.preprocessing.fit(store)
    expected = StandardScaler().fit_transform(frame[["age", "income"]].to_numpy(np.float32))
    found = inputs_of(store, module.preprocessing)["numeric"].numpy()
    np.testing.assert_allclose(found, expected.clip(-10, 10), atol=2e-4)


def test_missing_numbers_are_marked_and_become_the_mean(tmp_path):
    frame = frame_of()
    frame.loc[::4, "age"] = np.nan
    module, store = ingested(frame, tmp_path)
    figures = module.preprocessing.fit(store)
    inputs = inputs_of(store, module.preprocessing)
    missing = frame["age"].isna().to_numpy().copy()
    assert (inputs["missing"][:, 0].numpy() == missing).all()
    assert (inputs["numeric"][missing, 0] == 0).all()
    assert module.preprocessing.values[0].mean == pytest.approx(frame["age"].mean(), rel=1e-6)
    assert figures["missing"]["age"] == pytest.approx(0.25)


def test_a_column_without_a_value_is_fitted_when_it_has_some(tmp_path):
    frame = frame_of().assign(age=np.nan)
    module, store = ingested(frame, tmp_path, numeric=["age"])
    fitted = module.preprocessing
    fitted.fit(store)
    assert (inputs_of(store, fitted)["numeric"][:, 0] == 0).all()
    (tmp_path / "later").mkdir()
    _, store = ingested(frame_of(), tmp_path / "later", fitted)
    fitted.fit(store)
    assert float(inputs_of(store, fitted)["numeric"][:, 0].std()) == pytest.approx(1, abs=0.01)


def test_means_and_scales_stay_those_of_the_first_update(tmp_path):
    module, store = ingested(frame_of(), tmp_path)
    fitted = module.preprocessing
    fitted.fit(store)
    before = fitted.content()["values"]
    (tmp_path / "later").mkdir()
    later = frame_of(seed=1).assign(age=9999.0)
    _, store = ingested(later, tmp_path / "later", fitted)
    assert fitted.fit(store)["outside_range"]["age"] == 200
    assert fitted.content()["values"] == before


def test_a_category_is_unknown_until_training_rows_have_it(tmp_path):
    module, store = ingested(frame_of(cities=("Oslo", "Rome", "Bonn")), tmp_path)
    fitted = module.preprocessing
    rome = fitted.categories[0].codes["Rome"]
    without = np.flatnonzero(store.column("inputs.categorical")[:, 0] != rome)
    part = ingest(
        torch.utils.data.Subset(module.train_data(), without.tolist()),
        tmp_path / "part",
        1,
        "train",
    )
    fitted.fit(part)
    codes = inputs_of(store, fitted)["categorical"][:, 0]
    stored = torch.from_numpy(store.column("inputs.categorical")[:, 0].copy()).long()
    assert codes[stored == rome].unique().tolist() == [0]
    assert (codes[stored != rome] == stored[stored != rome]).all()
    fitted.fit(store)
    assert (inputs_of(store, fitted)["categorical"][:, 0] == stored).all()


def test_raw_rows_are_encoded_as_they_were_stored(tmp_path):
    frame = frame_of()
    frame.loc[[1, 5], ["age", "city"]] = [[np.nan, None], [1.0, "Rome"]]
    module, store = ingested(frame, tmp_path)
    for rows in (frame, frame.to_dict("records"), frame.to_dict("list")):
        encoded = module.preprocessing.encode(rows)
        for name in ("numeric", "categorical"):
            np.testing.assert_array_equal(encoded[name], store.column(f"inputs.{name}"))


def test_unknown_categories_of_raw_rows_add_nothing(tmp_path):
    module, _ = ingested(frame_of(), tmp_path)
    before = json.dumps(module.preprocessing.content())
    encoded = module.preprocessing.encode([{"age": 1, "income": 2, "city": "Atlantis"}])
    assert encoded["categorical"].tolist() == [[0]]
    assert json.dumps(module.preprocessing.content()) == before


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"age": 1, "city": "Rome"}], "columns are missing: income"),
        ([{"age": "old", "income": 1, "city": "Rome"}], "row 0: age is not a number"),
        ({"age": [1, 2], "income": [1], "city": ["Rome"]}, "rows: "),
        (3, "found a int"),
    ],
)
def test_raw_rows_that_cannot_be_read_are_refused(tmp_path, rows, problem):
    module, _ = ingested(frame_of(), tmp_path)
    with pytest.raises(TableError, match=problem):
        module.preprocessing.encode(rows)


def test_it_is_written_and_read_with_equal_bytes(tmp_path):
    module, store = ingested(frame_of(), tmp_path)
    module.preprocessing.fit(store)
    module.preprocessing.built = {"num_outputs": 1}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    module.preprocessing.write(tmp_path / "one")
    found = read_preprocessing(tmp_path / "one")
    found.write(tmp_path / "two")
    texts = [
        (tmp_path / name / "preprocessing" / "preprocessing.json").read_bytes()
        for name in ("one", "two")
    ]
    assert texts[0] == texts[1]
    assert found.built == {"num_outputs": 1}
    assert found.problem_reading(module.preprocessing) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(kind="sound"),
        lambda content: content.pop("values"),
        lambda content: content["values"].pop(),
        lambda content: content["values"][0].update(mean="much"),
        lambda content: content["values"][0].update(scale=0),
        lambda content: content["categories"][0]["trained"].pop(),
        lambda content: content["categories"][0].update(names=["a", "a"], trained=[True] * 3),
        lambda content: content["columns"][0].update(kind="sound"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change):
    module, _ = ingested(frame_of(), tmp_path)
    module.preprocessing.write(tmp_path)
    path = tmp_path / "preprocessing" / "preprocessing.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(MalformedFileError, match=r"preprocessing\.json"):
        read_preprocessing(tmp_path)


def test_another_meaning_of_a_code_is_found():
    one, two = (TablePreprocessing({"city": "categorical"}) for _ in range(2))
    for name in ("Oslo", "Rome"):
        one.categories[0].add(name)
    two.categories[0].add("Oslo")
    assert one.problem_reading(two) is None
    two.categories[0].add("Bonn")
    assert "'Rome' and 'Bonn'" in one.problem_reading(two)
    assert (
        one.problem_reading(TablePreprocessing({"town": "categorical"})) == "it has other columns"
    )
