"""Shift figures that `prepare` writes for new data, and the decision of `should-update`."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from small_comparisons import digits, first_update, put_incoming, quiet
from small_project import edit_config, edit_params

from renate_stages import errors, files
from renate_stages.cli.main import main
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.params import Params, ShiftParams
from renate_stages.project import Project
from renate_stages.shift import DETECTORS
from renate_stages.shift.data_metrics import DataMetrics, lines_of
from renate_stages.shift.decision import Ruling, decide
from renate_stages.shift.reference import reference_rows
from renate_stages.shift.rows import Sample, raw_fields, raw_rows
from renate_stages.stages import prepare
from renate_stages.state import state


@pytest.fixture(scope="module")
def after_one(tmp_path_factory):
    """The folder of a project whose update 2 is open; tests work on copies."""
    return tmp_path_factory.mktemp("one") / "project"


@pytest.fixture
def second(project, after_one) -> Project:
    if not after_one.exists():
        first_update(project)
        shutil.copytree(project.root, after_one)
    shutil.copytree(after_one, project.root, dirs_exist_ok=True)
    return project


def prepared(project, images, labels) -> dict:
    put_incoming(project, images, labels)
    prepare.run(project, quiet)
    return files.read_json(project.data_metrics)


def run_should_update(monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["renate-stages", "should-update"])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), "".join(capsys.readouterr())


def test_first_update_has_no_shift_figures_and_is_needed(project, monkeypatch, capsys):
    prepare.run(project, quiet)
    assert "shift" not in files.read_json(project.data_metrics)
    assert project.feature_shift.read_text().count("\n") == 1, "the plot in dvc.yaml needs a header"
    code, output = run_should_update(monkeypatch, capsys)
    assert code == 0 and "no earlier update" in output


def test_digits_of_the_same_distribution_need_no_update(second, monkeypatch, capsys):
    figures = prepared(second, *digits(1))["shift"]
    assert set(figures) == {
        *("alarms", "features", "interval", "model", "new", "parent", "reference", "tests"),
    }
    assert figures["alarms"] == 0
    assert (figures["features"]["compared"], figures["features"]["shifted"]) == (64, 0)
    assert set(figures["tests"]) == {"mmd", "ks", "label_chi2"}
    rows = len(ExampleStore.open(second.prepared / "train"))
    assert figures["new"]["rows"] == rows
    assert figures["reference"]["rows"] == len(state.State.open(second.parent).split("holdouts")[1])
    assert figures["model"]["accuracy"] == pytest.approx(figures["parent"]["accuracy"], abs=0.05)
    code, output = run_should_update(monkeypatch, capsys)
    assert code == 1, output
    assert "shift: no: ks p" in output and "update 2: not needed" in output


def test_rotated_digits_need_an_update(second, monkeypatch, capsys):
    figures = prepared(second, *digits(1, rotated=True))["shift"]
    assert figures["alarms"] == 2, "pixels changed, labels did not"
    assert figures["tests"]["label_chi2"]["corrected_p_value"] > 0.01
    assert figures["tests"]["ks"]["effect_size"] > 0.3
    assert figures["model"]["accuracy"] < figures["parent"]["accuracy"] - 0.3
    code, output = run_should_update(monkeypatch, capsys)
    assert code == 0, output
    assert "shift: yes" in output and "performance_drop: yes" in output and "2: needed" in output


def shifted_features(project) -> list[dict[str, str]]:
    with project.feature_shift.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_shift_of_rotated_digits_is_attributed_to_edge_pixels(second):
    put_incoming(second, *digits(1, rotated=True))
    output: list[str] = []
    prepare.run(second, output.append)
    figures = files.read_json(second.data_metrics)["shift"]["features"]
    rows = shifted_features(second)
    assert figures["most_shifted"] == rows[0]["feature"]
    assert len(rows) == 50 and figures["compared"] == 64
    assert figures["shifted"] >= 40
    assert f"{figures['shifted']} of 64 features, most of all {rows[0]['feature']}" in output
    places = {tuple(json.loads(row["feature"])) for row in rows[:8]}
    # Digits are taller than wide: ink left the middle of the upper and lower edge for the sides.
    assert places == {(y, x) for y in (0, 7) for x in (3, 4)} | {
        (y, x) for y in (3, 4) for x in (0, 7)
    }
    changes = {tuple(json.loads(row["feature"])): float(row["mean_change"]) for row in rows}
    assert changes[0, 3] < -1 and changes[3, 0] > 1
    first = second.feature_shift.read_bytes()
    prepare.run(second, quiet)
    assert second.feature_shift.read_bytes() == first


def test_shift_csv_has_the_feature_names_of_the_data_module(second):
    names = tuple(f"pixel {number}" for number in range(64))
    edit_config(
        second,
        "    def setup(self) -> None:",
        f"    feature_names = {names!r}\n\n    def setup(self) -> None:",
    )
    prepared(second, *digits(1, rotated=True))
    assert shifted_features(second)[0]["feature"] == "pixel 4"
    edit_config(second, "'pixel 63'", "'pixel 62'")
    with pytest.raises(errors.DataModuleError, match="feature_names"):
        prepared(second, *digits(1))


def test_features_of_model_and_feature_fn_are_named_by_index(second):
    edit_params(second, shift__features="model", shift__tests=["mmd", "c2st"])
    figures = prepared(second, *digits(1, rotated=True))["shift"]
    rows = shifted_features(second)
    assert figures["features"]["most_shifted"].startswith("model[")
    assert all(0 <= float(row["distance"]) <= 1 and row["weight"] for row in rows)
    text = "\n\ndef feature_fn():\n    return lambda x: x.flatten(1).mean(1, keepdim=True)\n"
    second.user_config.write_text(second.user_config.read_text() + text)
    edit_params(second, shift__features="auto")
    prepared(second, *digits(1))
    assert [row["feature"] for row in shifted_features(second)] == ["feature_fn[0]"]


def test_label_detectors_alone_write_no_feature_shift(second):
    edit_params(second, shift__tests=["label_chi2", "bbse"])
    assert "features" not in prepared(second, *digits(1))["shift"]
    assert shifted_features(second) == []


def test_shift_figures_are_reproducible_and_depend_on_the_seed(second):
    edit_params(second, shift__max_rows=100)
    first = prepared(second, *digits(1))
    assert prepared(second, *digits(1)) == first
    assert first["shift"]["new"] == first["shift"]["reference"] == {"rows": 100}
    edit_params(second, seed=1)
    assert prepared(second, *digits(1)) != first


def test_shift_comparison_does_not_change_the_prepared_stores(second):
    prepared(second, *digits(1))
    before = files.inventory(second.prepared)
    edit_params(second, shift__enabled=False)
    assert "shift" not in prepared(second, *digits(1))
    assert shifted_features(second) == []
    assert files.inventory(second.prepared) == before


def test_all_detectors_run_on_features_of_the_model(second):
    edit_params(
        second, shift__tests=sorted(DETECTORS), shift__features="model", shift__reference="holdouts"
    )
    calm = prepared(second, *digits(1))["shift"]
    comparable = set(DETECTORS) - {"chi2", "missing", "words"}  # images have neither
    assert set(calm["tests"]) == comparable and calm["alarms"] == 0
    rotated = prepared(second, *digits(1, rotated=True))["shift"]
    assert rotated["alarms"] == len(comparable) - 1, "all but label_chi2"


def test_changed_class_shares_are_detected_from_model_predictions(second):
    edit_params(second, shift__tests=["bbse", "label_chi2"])
    images, labels = digits(1)
    often = np.flatnonzero((labels < 5) | (np.arange(len(labels)) % 4 == 0))
    tests = prepared(second, images[often], labels[often])["shift"]["tests"]
    assert tests["bbse"]["corrected_p_value"] < 0.01 and tests["label_chi2"]["p_value"] < 0.01
    share = (labels[often] < 5).mean() - 0.5
    assert tests["bbse"]["effect_size"] == pytest.approx(share, abs=0.1)


def test_features_of_feature_fn_are_compared_if_it_is_defined(second):
    text = "\n\ndef feature_fn(power: int = 1):\n    return lambda x: x.flatten(1).mean(1, keepdim=True) ** power\n"
    second.user_config.write_text(second.user_config.read_text() + text)
    figures = prepared(second, *digits(1, rotated=True))["shift"]
    assert figures["tests"]["ks"]["corrected_p_value"] > 0.01, "rotation does not change the mean"
    brighter = np.minimum(digits(1)[0] + 2, 16).astype(np.uint8)
    assert prepared(second, brighter, digits(1)[1])["shift"]["alarms"] == 2
    edit_config(second, "x.flatten(1).mean(1, keepdim=True) ** power", "x.mean()")
    with pytest.raises(errors.UserConfigError, match="feature_fn"):
        prepared(second, *digits(1))


def test_missing_feature_fn_is_reported_as_user_config_error(second):
    edit_params(second, shift__features="feature_fn")
    with pytest.raises(errors.UserConfigError, match="define feature_fn"):
        prepared(second, *digits(1))


def test_model_that_cannot_be_built_is_skipped_and_reported(second):
    edit_config(second, "MLP.from_state_dict(torch.load(model_state_url))", "MLP(64, 10, 1, 7)")
    edit_config(
        second, "def model_fn(model_state_url: str | None = None, hidden", "def model_fn(hidden"
    )
    edit_config(second, "if model_state_url is not None", "if hidden_size == 128")
    edit_params(second, shift__tests=["ks", "bbse"])
    put_incoming(second, *digits(1))
    output: list[str] = []
    prepare.run(second, output.append)
    figures = files.read_json(second.data_metrics)["shift"]
    assert set(figures["skipped"]) == {"bbse", "model"} and set(figures["tests"]) == {"ks"}
    assert "model" not in figures and any("model is left out" in line for line in output)


def test_should_update_refuses_figures_of_another_update(second, monkeypatch, capsys):
    prepared(second, *digits(1))
    edit_params(second, update__number=3)
    code, output = run_should_update(monkeypatch, capsys)
    assert code == 2 and "dvc repro prepare" in output
    second.data_metrics.unlink()
    code, output = run_should_update(monkeypatch, capsys)
    assert code == 2 and "prepare" in output


# -- rows


def all_of(stores: list[ExampleStore]) -> list[tuple[ExampleStore, np.ndarray]]:
    return [(store, np.arange(len(store))) for store in stores]


def test_sample_is_drawn_uniformly_from_all_stores_in_row_order(tmp_path):
    stores = []
    for number, rows in enumerate((30, 0, 70)):
        with StoreWriter(tmp_path / str(number), update=1) as writer:
            if rows:
                values = 100 * number + np.arange(rows)
                writer.append(({"a": values, "b": np.ones((rows, 2))}, values))
        stores.append(ExampleStore.open(tmp_path / str(number)))
    counts = np.zeros(300)
    for seed in range(200):
        sample = Sample.draw(all_of(stores), 20, np.random.default_rng(seed))
        labels = sample.labels()
        assert labels is not None and len(sample) == len(set(labels)) == 20
        assert (np.diff(labels) > 0).all()
        counts[labels] += 1
        np.testing.assert_array_equal(raw_rows(sample)[:, 0], labels)
    assert raw_rows(sample).shape == (20, 3)
    drawn = counts[np.r_[0:30, 200:270]]
    assert drawn.sum() == 4000 and drawn.min() > 20 and drawn.max() < 65  # about 40 draws each
    everything = Sample.draw(all_of(stores), 1000, np.random.default_rng(0))
    assert len(everything) == 100


def test_token_sequences_have_no_raw_rows(tmp_path):
    from renate_stages.memory import Ragged

    with StoreWriter(tmp_path / "texts", update=1) as writer:
        tokens = Ragged(np.arange(10), np.array([0, 3, 10]))
        writer.append((tokens, np.zeros(2, int)))
    stores = all_of([ExampleStore.open(tmp_path / "texts")])
    sample = Sample.draw(stores, 10, np.random.default_rng(0))
    with pytest.raises(errors.UncomparableRowsError, match="differ in shape"):
        raw_rows(sample)


def test_images_of_mixed_or_very_large_sizes_have_no_raw_fields(tmp_path):
    stores = []
    for side in (4, 5, 101):
        with StoreWriter(tmp_path / str(side), update=1) as writer:
            writer.append((np.zeros((3, side, side), np.uint8), np.zeros(3, int)))
        stores.append(ExampleStore.open(tmp_path / str(side)))
    for drawn_from, fits in ((stores[:1], True), (stores[:2], False), (stores[2:], False)):
        sample = Sample.draw(all_of(drawn_from), 10, np.random.default_rng(0))
        assert (raw_fields(sample) is not None) == fits


# -- the decision


def data(p: float = 0.5, new: float = 0.9, rows: int = 100) -> DataMetrics:
    test = {"corrected_p_value": p, "effect_size": 0.1, "p_value": p, "statistic": 1.0}
    shift = {"tests": {"mmd": test}, "model": {"accuracy": new}, "parent": {"accuracy": 0.95}}
    return DataMetrics.model_validate({"shift": shift, "train": {"rows": rows}, "update": 2})


def decided(policy: dict, age: float | None = None, **figures) -> tuple[bool, list[bool | None]]:
    policy = {"new_labels": False, **policy}
    content = {"update": {"number": 2, "parent": 1}, "should_update": policy}
    decision = decide(Params.parse(content), data(**figures), age)
    return decision.update, [ruling.fires for ruling in decision.rulings]


def test_each_should_update_rule_fires_at_its_threshold():
    only = {"shift": False, "performance_drop": None}
    assert decided({}) == (False, [False, False])
    assert decided({}, p=0.01) == (True, [False, True])
    assert decided({}, new=0.89) == (True, [True, False])
    assert decided({**only, "amount_of_data": 100}) == (True, [True])
    assert decided({**only, "amount_of_data": 101}) == (False, [False])
    assert decided({**only, "age": 30}, age=30.0) == (True, [True])
    assert decided({**only, "age": 30}, age=29.9) == (False, [False])
    assert decided({**only, "age": 30}) == (False, [None])
    assert decided(only) == (False, [])


def test_should_update_rules_are_combined_by_any_or_all():
    policy = {"amount_of_data": 50, "when": "all"}
    assert decided(policy, p=0.001) == (False, [False, True, True])
    assert decided(policy, p=0.001, new=0.5) == (True, [True, True, True])
    assert decided({**policy, "when": "any"}) == (True, [False, False, True])


def test_new_labels_ask_for_an_update_and_are_named_first():
    new = {f"n{number}": number for number in range(13)}
    for labels, policy, fires, update in (
        ({"new": new, "new_rows": 78}, {}, True, True),
        ({"new": {}, "new_rows": 0}, {}, False, False),
        ({"new": {"val": 0}, "new_rows": 0}, {}, False, False),
        ({"new": None}, {}, None, False),
        ({"new": new, "new_rows": 78}, {"when": "all"}, True, False),
        ({"new": {}}, {"when": "all", "performance_drop": None, "amount_of_data": 9}, False, True),
        (
            {"new": new, "new_rows": 78},
            {"when": "all", "performance_drop": None, "shift": False},
            *(True, True),
        ),
    ):
        policy = {"shift": "amount_of_data" not in policy and policy.get("shift", True), **policy}
        content = {"update": {"number": 2, "parent": 1}, "should_update": policy}
        figures = {"train": {"rows": 100}, "labels": labels}
        decision = decide(Params.parse(content), DataMetrics.model_validate(figures), None)
        first = decision.rulings[0]
        assert (first.rule, first.fires, decision.update) == ("new_labels", fires, update)
        named = "78 training and test rows have labels that the parent has not seen: n12, n11, n10"
        assert (named in first.reason and "n3 and 2 more" in first.reason) == (fires is True)
        assert ("the other rules decide" in first.reason) == (
            fires is True and policy.get("when") == "all"
        )


def test_performance_drop_with_mode_min_fires_on_higher_metric_values():
    content = {
        "update": {"number": 2, "parent": 1},
        "evaluation": {"metric": "error", "mode": "min"},
        "should_update": {"shift": False, "performance_drop": 0.1},
    }
    for new, fires in ((0.35, True), (0.25, False), (0.1, False)):
        figures = {
            "shift": {"model": {"error": new}, "parent": {"error": 0.2}},
            "train": {"rows": 1},
        }
        data = DataMetrics.model_validate(figures)
        assert decide(Params.parse(content), data, None).update == fires


@pytest.mark.parametrize(("high", "fires"), [(0.89, True), (0.91, False)])
def test_drop_within_the_noise_of_few_labels_does_not_ask_for_an_update(high, fires):
    shift = {
        "model": {"accuracy": 0.8},
        "parent": {"accuracy": 0.9},
        "interval": {"low": 0.7, "high": high},
    }
    data = DataMetrics.model_validate({"shift": shift, "train": {"rows": 40}})
    content = {"update": {"number": 2, "parent": 1}, "should_update": {"shift": False}}
    _, ruling = decide(Params.parse(content), data, None).rulings
    assert ruling.fires is fires
    assert ("within noise: 95 % interval 0.700 to 0.910" in str(ruling)) != fires


def test_should_update_rules_without_figures_are_unknown():
    content = {"update": {"number": 2, "parent": 1}}
    figures = DataMetrics.model_validate({"train": {"rows": 5}, "update": 2})
    decision = decide(Params.parse(content), figures, None)
    assert not decision.update and [each.fires for each in decision.rulings] == [None] * 3
    assert all("data.json" in str(ruling) for ruling in decision.rulings)


def test_shift_params_accept_every_detector():
    annotation = ShiftParams.model_json_schema()["properties"]["tests"]["items"]["enum"]
    assert set(annotation) == set(DETECTORS)
    assert json.dumps(sorted(annotation))


def test_missing_p_value_leaves_shift_unknown_unless_another_detector_fires():
    nan, clear = {"corrected_p_value": None, "effect_size": None}, {"corrected_p_value": 0.001}
    content = {"update": {"number": 2, "parent": 1}, "should_update": {"performance_drop": None}}
    for tests, fires in (({"ks": nan}, None), ({"ks": nan, "mmd": {**nan, **clear}}, True)):
        figures = DataMetrics.model_validate({"shift": {"tests": tests}})
        _, ruling = decide(Params.parse(content), figures, None).rulings
        assert ruling.fires is fires and "ks p unknown, effect unknown" in ruling.reason


# -- effect and performance


def ruling_on_shift(policy: dict | None = None, **shift) -> Ruling:
    content = {"update": {"number": 2, "parent": 1}, "should_update": policy or {}}
    tests = {"ks": {"corrected_p_value": 0.001, "effect_size": 0.3}}
    figures = DataMetrics.model_validate({"shift": {"tests": tests, **shift}})
    decision = decide(Params.parse(content), figures, None)
    return next(ruling for ruling in decision.rulings if ruling.rule == "shift")


def test_shift_with_an_effect_below_the_minimum_does_not_fire():
    for effect, fires in ((0.3, True), (0.29, False)):
        tests = {"ks": {"corrected_p_value": 0.001, "effect_size": effect}}
        ruling = ruling_on_shift({"min_effect": 0.3}, tests=tests)
        assert ruling.fires is fires
    assert "no effect at level 0.01 is at least 0.3" in ruling.reason


@pytest.mark.parametrize(
    ("low", "policy", "fires"),
    [
        (0.86, {}, False),
        (0.84, {}, True),  # with few labels, the model may have become worse by more than 0.05
        (0.86, {"shift": "always"}, True),
        (0.86, {"performance_drop": None}, True),
        (0.86, {"performance_drop": 0.03}, True),
    ],
)
def test_shift_counts_unless_labels_show_that_the_model_did_not_get_worse(low, policy, fires):
    known = {"model": {"accuracy": 0.9}, "parent": {"accuracy": 0.9}}
    ruling = ruling_on_shift(policy, **known, interval={"low": low, "high": 0.94})
    assert ruling.fires is fires
    assert ("did not get worse: with 95 % confidence it is at least 0.860" in str(ruling)) != fires
    assert ruling_on_shift(policy, **known).fires, "without an interval, the shift counts"


def test_interval_of_a_metric_to_minimize_is_judged_by_its_upper_end():
    content = {
        "update": {"number": 2, "parent": 1},
        "evaluation": {"metric": "error", "mode": "min"},
        "should_update": {"performance_drop": 0.05},
    }
    tests = {"ks": {"corrected_p_value": 0.001, "effect_size": 0.3}}
    for high, fires in ((0.14, False), (0.16, True)):
        shift = {
            "tests": tests,
            "model": {"error": 0.1},
            "parent": {"error": 0.1},
            "interval": {"low": 0.05, "high": high},
        }
        figures = DataMetrics.model_validate({"shift": shift})
        rulings = decide(Params.parse(content), figures, None).rulings
        assert [each.fires for each in rulings] == [None, False, fires]


def test_estimate_is_used_only_for_accuracy_and_only_without_labels():
    estimate = {"accuracy": 0.7, "rows": 50, "error": 0.02}
    shift = {"parent": {"accuracy": 0.9, "f1": 0.9}, "estimated_performance": estimate}
    for metric, model, fires in (
        ("accuracy", {}, True),
        ("f1", {}, None),
        ("accuracy", {"accuracy": 0.89}, False),
    ):
        content = {"update": {"number": 2, "parent": 1}, "evaluation": {"metric": metric}}
        figures = DataMetrics.model_validate({"shift": {**shift, "model": model}})
        first = decide(Params.parse(content), figures, None).rulings[1]
        assert first.rule == "performance_drop" and first.fires is fires
        assert ("off by at most 0.020 on past holdouts" in first.reason) == (fires is True)


# -- the reference


def stored(folder, rows: int, updates: list[int] | None = None) -> ExampleStore:
    with StoreWriter(folder, update=1) as writer:
        if rows:
            known = {} if updates is None else {"update": np.array(updates)}
            writer.append((np.arange(rows), np.zeros(rows, int)), known)
    return ExampleStore.open(folder)


def test_reference_last_prefers_holdout_then_validation_then_memory_rows(tmp_path):
    memory = stored(tmp_path / "memory", 5, [1, 2, 2, 1, 2])
    old, new, empty = (stored(tmp_path / str(n), n) for n in (3, 4, 0))
    for holdouts, validation, expected in (
        ({1: old, 2: new}, {2: old}, [(new, [0, 1, 2, 3])]),
        ({1: old, 2: empty}, {1: old, 2: old}, [(old, [0, 1, 2])]),
        ({1: old}, {}, [(memory, [1, 2, 4])]),
    ):
        splits = {"holdouts": holdouts, "validation": validation}
        parent = SimpleNamespace(
            provenance=SimpleNamespace(update=2),
            split=splits.__getitem__,
            memory=lambda: memory,
        )
        found = reference_rows(cast(Any, parent), "last")
        assert [(store, rows.tolist()) for store, rows in found] == expected
        drawn = Sample.draw(found, 2, np.random.default_rng(0))
        assert len(drawn) == 2 and set(drawn.stores[0][1]) <= set(expected[0][1])


def test_shares_of_a_preprocessing_are_shown_in_per_cent_and_counts_as_numbers():
    fitted = {"missing": {"note": 0.00228833}, "new_words": {"note": 1234567, "title": 0}}
    assert lines_of({}, fitted) == ["missing: note 0.229 %", "new words: note 1234567"]
