"""Plot data for DVC, and pictures drawn from the evaluation history."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_results import results_of

from renate_stages.evaluation import EvaluationHistory
from renate_stages.evaluation.plasticity_history import PlasticityHistory
from renate_stages.reporting.plasticity_plots import draw_plasticity, write_plasticity
from renate_stages.reporting.plots import draw, write_plot_data

PNG = b"\x89PNG\r\n\x1a\n"


def history_of(updates: int) -> EvaluationHistory:
    history = EvaluationHistory()
    for t in range(1, updates + 1):
        results = {i: {"accuracy": 1 - (t - i) / 8, "loss": (t - i) / 8} for i in range(1, t + 1)}
        history = history.with_update(t, "after", results_of(results, dict.fromkeys(results, 10)))
    return history


def test_plot_data_files_match_the_documented_tables(tmp_path: Path) -> None:
    curves = [{"epoch": 0, "train_loss": 1.5}, {"epoch": 1, "val_loss": 1 / 3, "train_loss": 1.0}]
    written = write_plot_data(tmp_path / "plots", history_of(2), curves)
    assert sorted(written) == sorted((tmp_path / "plots").iterdir())
    texts = {path.name: path.read_bytes().decode() for path in written}
    assert texts == {
        "holdouts_accuracy.csv": "update,holdout,value\n1,1,1\n2,1,0.875\n2,2,1\n",
        "holdouts_loss.csv": "update,holdout,value\n1,1,0\n2,1,0.125\n2,2,0\n",
        "summary.csv": (
            "update,accuracy_average,accuracy_overall,accuracy_forgetting,"
            "accuracy_backward_transfer,accuracy_forward_transfer,accuracy_prequential,"
            "loss_average,loss_overall,loss_forgetting,loss_backward_transfer,"
            "loss_forward_transfer,loss_prequential\n"
            "1,1,1,0,0,0,,0,0,0,0,0,\n"
            "2,0.9375,0.9375,0.125,-0.125,,,0.0625,0.0625,0.125,-0.125,,\n"
        ),
        "learning_curve.csv": "epoch,train_loss,val_loss\n0,1.5,\n1,1,0.33333333\n",
    }


def test_plot_data_of_an_empty_history_have_only_headers(tmp_path: Path) -> None:
    texts = [path.read_text() for path in write_plot_data(tmp_path, EvaluationHistory())]
    assert texts == ["update\n", "epoch\n"]


def test_lower_is_better_inverts_the_sign_of_forgetting(tmp_path: Path) -> None:
    write_plot_data(tmp_path, history_of(2), lower_is_better=("loss", "accuracy"))
    assert (tmp_path / "summary.csv").read_text().splitlines()[2].startswith("2,0.9375,0.9375,-0.1")


def test_metric_names_are_escaped_in_file_names(tmp_path: Path) -> None:
    history = EvaluationHistory().with_update(
        1, "after", results_of({1: {"../top 5": 1.0}}, {1: 1})
    )
    names = [path.name for path in write_plot_data(tmp_path, history)]
    assert names[0] == "holdouts_..%2Ftop 5.csv"
    assert (tmp_path / names[0]).is_file()


@pytest.mark.parametrize("updates", [1, 3, 26])
def test_every_metric_is_drawn_with_identical_bytes(tmp_path: Path, updates: int) -> None:
    history = history_of(updates)
    paths = draw(tmp_path / "one", history)
    assert [path.name for path in paths] == [
        "matrix_accuracy.png",
        "holdouts_accuracy.png",
        "matrix_loss.png",
        "holdouts_loss.png",
    ]
    assert sorted(paths) == sorted((tmp_path / "one").iterdir())
    for one, two in zip(paths, draw(tmp_path / "two", history), strict=True):
        assert one.read_bytes().startswith(PNG)
        assert one.read_bytes() == two.read_bytes()


def test_nan_and_infinity_can_be_drawn_and_an_empty_history_draws_nothing(tmp_path: Path) -> None:
    results = {1: {"f1": float("nan")}, 2: {"f1": float("inf")}}
    history = EvaluationHistory().with_update(2, "after", results_of(results, {1: 1, 2: 1}))
    assert len(draw(tmp_path, history)) == 2
    assert draw(tmp_path, EvaluationHistory()) == []


CURVE = [
    {"coefficient": c / 4, "new_loss": 2 - c / 4, "new_accuracy": 0.5 + c / 10,
     "old_loss": c / 2, "old_accuracy": 0.98 - c * c / 80, "chosen": int(c == 3)}
    for c in range(5)
]  # fmt: skip


def test_table_of_a_learner_is_written_to_its_own_csv_file(tmp_path: Path) -> None:
    rows = [{"coefficient": 0.0, "new_loss": 2.0}, {"coefficient": 1.0, "new_loss": 1.5, "old": 3}]
    written = write_plot_data(tmp_path, EvaluationHistory(), tables={"interpolation": rows})
    assert [path.name for path in written][-1] == "interpolation.csv"
    assert written[-1].read_text() == "coefficient,new_loss,old\n0,2,\n1,1.5,3\n"


def test_interpolation_trade_off_is_drawn_for_each_metric(tmp_path: Path) -> None:
    write_plot_data(tmp_path / "plots", history_of(2), tables={"interpolation": CURVE})
    alone = [path.name for path in draw(tmp_path / "alone", history_of(2))]
    found = draw(tmp_path / "one", history_of(2), tmp_path / "plots")
    added = [path.name for path in found][len(alone) :]
    assert added == ["interpolation_loss.png", "interpolation_accuracy.png"]
    assert sorted(found) == sorted((tmp_path / "one").iterdir())
    for one, two in zip(
        found, draw(tmp_path / "two", history_of(2), tmp_path / "plots"), strict=True
    ):
        assert one.read_bytes() == two.read_bytes()


def test_no_interpolation_trade_off_is_drawn_without_old_validation_data(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if not k.startswith("old")} for row in CURVE]
    write_plot_data(tmp_path / "plots", EvaluationHistory(), tables={"interpolation": rows})
    assert draw(tmp_path / "pictures", EvaluationHistory(), tmp_path / "plots") == []


def test_plasticity_without_any_figure_is_not_drawn(tmp_path):
    unknown = dict.fromkeys(("dead_units", "weight_norm", "effective_rank", "feature_dimension"))
    history = PlasticityHistory().with_update(1, None, unknown).with_update(2, None, unknown)
    path = write_plasticity(tmp_path, history)
    assert path.read_text().splitlines()[1:] == ["1,,,,", "2,,,,"]
    assert draw_plasticity(tmp_path, tmp_path) == []
