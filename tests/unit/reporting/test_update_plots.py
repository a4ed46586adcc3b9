"""Plot data and pictures of one update: confusion, classes, memory, learning curve, forgetting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_results import results_of

from renate_stages.evaluation import EvaluationHistory
from renate_stages.evaluation.examined import Examined, Predictions
from renate_stages.evaluation.figures import Answers
from renate_stages.memory.composition import Part
from renate_stages.reporting import update_pictures
from renate_stages.reporting.plots import write_plot_data
from renate_stages.reporting.update_pictures import draw_update
from renate_stages.reporting.update_plots import write_update_plots


def answers_of(labels: list[int], predicted: list[int]) -> Answers:
    rows = Predictions(np.array(labels), np.array(predicted), np.full(len(labels), 0.5, np.float32))
    return Answers({1: Examined(len(labels), {}, rows)})


def test_plot_data_of_an_update_match_the_documented_tables(tmp_path: Path) -> None:
    memory = [Part(1, 3, 10, {"0": 2, "10": 1}, {}), Part(None, 4, 10, {}, {})]
    written = write_update_plots(tmp_path, answers_of([10, 2, 10, 2], [2, 2, 10, 2]), memory)
    assert {path.name: path.read_text() for path in written} == {
        "confusion.csv": "actual,predicted\n2,2\n2,2\n10,2\n10,10\n",
        "classes.csv": "class,accuracy,rows\n2,1,2\n10,0.5,2\n",
        "memory.csv": "update,class,rows\n1,0,2\n1,10,1\n,,4\n",
    }


def test_plot_data_without_labels_and_memory_have_only_headers(tmp_path: Path) -> None:
    written = write_update_plots(tmp_path, Answers({1: Examined(3, {"loss": 1.0})}), [])
    assert [path.read_text().count("\n") for path in written] == [1, 1, 1]
    assert draw_update(tmp_path / "pictures", EvaluationHistory(), tmp_path, "accuracy") == []


def test_pictures_of_an_update_are_drawn_with_identical_bytes(tmp_path: Path) -> None:
    history = EvaluationHistory()
    for t in (1, 2, 3):
        values = {i: {"top 1/5": 1 - (t - i) / 8} for i in range(1, t + 1)}
        history = history.with_update(t, "after", results_of(values, dict.fromkeys(values, 4)))
    curves = [{"epoch": e, "step": e, "train_loss": 1 / (e + 1), "val_f1": 0.5} for e in (0, 1)]
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 60, 500).tolist()
    for name, answers in (
        ("few", answers_of([0, 1], [1, 1])),
        ("many", answers_of(labels, labels)),
    ):
        plots = tmp_path / name
        write_plot_data(plots, history, curves)
        write_update_plots(plots, answers, [])
        found = draw_update(tmp_path / f"{name}-1", history, plots, "top 1/5")
        assert [path.name for path in found] == [
            "confusion.png",
            "classes.png",
            "learning_curve.png",
            "forgetting_top 1%2F5.png",
        ]
        again = draw_update(tmp_path / f"{name}-2", history, plots, "top 1/5")
        assert [path.read_bytes() for path in found] == [path.read_bytes() for path in again]


def test_no_forgetting_picture_is_drawn_for_a_single_update(tmp_path: Path) -> None:
    history = EvaluationHistory().with_update(
        1, "after", results_of({1: {"accuracy": 1.0}}, {1: 4})
    )
    assert draw_update(tmp_path, history, tmp_path, "accuracy") == []


def test_names_of_labels_are_drawn_without_overlap_and_formulas(tmp_path):
    names = ("a name of many words that goes on and on", "$5 {^ $", "oak")
    answers = replace(answers_of([0, 1, 2, 2], [0, 1, 2, 0]), names=names)
    write_update_plots(tmp_path, answers, [])
    assert draw_update(tmp_path / "pictures", EvaluationHistory(), tmp_path, "accuracy")
    rows = [{"actual": name, "predicted": name} for name in names]
    axes = update_pictures._confusion(rows).axes[0]
    texts = [label.get_text() for label in axes.get_xticklabels()]
    assert texts == ["a name of many words th…", r"\$5 {^ \$", "oak"]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {45.0}
    short = [{"actual": name, "predicted": name} for name in ("1", "2")]
    axes = update_pictures._confusion(short).axes[0]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0.0}
