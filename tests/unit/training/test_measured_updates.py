"""Metrics that `train` writes to metrics/update.json, compared with the models' predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_project import REPOSITORY, edit_config, edit_params, move_on

from renate_stages import errors, files
from renate_stages.actions.example_data import write_digits
from renate_stages.models import MLP
from renate_stages.models.stored import write_checkpoint
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State
from renate_stages.training import plasticity


def quiet(message: str) -> None:
    pass


def run(project) -> dict:
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)
    return files.read_json(project.update_metrics)


def predict(folder, holdouts, scratch) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the labels and the predictions of a state's model, by holdout."""
    write_checkpoint(folder, scratch / "model.ckpt")
    model = MLP.from_state_dict(torch.load(scratch / "model.ckpt")).eval()
    found = {}
    for number, store in holdouts.items():
        images, labels = store.gather(np.arange(len(store)))
        with torch.inference_mode():
            outputs = model(torch.from_numpy(images).float() / 16)
        found[number] = labels, outputs.argmax(1).numpy()
    return found


def test_update_metrics_compare_new_and_parent_predictions_row_by_row(sourced, tmp_path):
    edit_params(sourced, evaluation__slices=["source"], trainer__max_epochs=2)
    first = run(sourced)
    assert first["flips"] == {"negative": None, "positive": None}  # the parent has no model
    assert first["accuracy"]["change"] is None

    move_on(sourced)
    write_digits(sourced.incoming, 2)
    second = run(sourced)
    assert set(second) == {
        *("update", "memory", "training", "plasticity", "loss", "accuracy"),
        *("flips", "calibration", "classes", "slices"),
    }
    assert set(second["accuracy"]) == {
        *("average", "overall", "worst_holdout", "change", "interval", "holdout"),
        *("change_on_earlier", "prequential"),
        *("forgetting", "backward_transfer", "forward_transfer"),
    }
    holdouts = State.open(sourced.state).split("holdouts")
    before = predict(sourced.parent, holdouts, tmp_path)
    after = predict(sourced.state, holdouts, tmp_path)
    labels = np.concatenate([after[n][0] for n in (1, 2)])
    was, now = (np.concatenate([each[n][1] for n in (1, 2)]) == labels for each in (before, after))
    assert second["flips"]["negative"] == pytest.approx(np.mean(was & ~now), abs=1e-8)
    assert second["flips"]["positive"] == pytest.approx(np.mean(~was & now), abs=1e-8)
    assert second["accuracy"]["change"] == pytest.approx(now.mean() - was.mean(), abs=1e-8)
    assert second["classes"] == {
        str(label): pytest.approx(now[labels == label].mean(), abs=1e-8)
        for label in np.unique(labels)
    }
    source = np.concatenate([holdouts[n].metadata("source") for n in (1, 2)])
    assert second["slices"]["source"] == {
        name: pytest.approx(now[source == name.encode()].mean(), abs=1e-8) for name in ("eu", "us")
    }
    assert second["accuracy"]["interval"]["change"]["low"] > 0  # new classes were learnt
    assert 0 < second["calibration"]["error"] < 1

    export.run(sourced, quiet)
    report = sourced.report.read_text()
    assert report.splitlines()[2].startswith("**Better**: accuracy on all 2 holdouts")
    assert (
        "| holdout of | parent's model | new model | change | now wrong | now correct |" in report
    )
    assert "## Weakest parts" in report and "`dvc plots diff update-1`" in report
    data = files.read_json(sourced.data_metrics)
    assert f"| train | {data['train']['rows']} | 3 |" in report
    assert f"{data['shift']['alarms']} of 3 tests found a shift from the parent's data." in report
    assert "| `memory_size` | 100 |" in report


def test_slice_field_missing_in_all_examples_is_refused_before_training(project):
    edit_params(project, evaluation__slices=["region"])
    with pytest.raises(errors.SliceError, match=r"region.*no example has this field"):
        run(project)
    assert not project.state.exists()


def test_metric_with_a_reserved_name_is_refused(project):
    metrics = "\n\ndef metrics_fn():\n    from torchmetrics import MeanMetric\n"
    metrics += "    class Rows(MeanMetric):\n        def update(self, outputs, targets):\n"
    metrics += "            super().update(outputs.mean())\n    return {'flips': Rows()}\n"
    project.user_config.write_text(project.user_config.read_text() + metrics)
    edit_params(project, evaluation__metric="flips")
    with pytest.raises(errors.MetricError, match="already uses this name"):
        run(project)
    assert not project.state.exists()


def test_slices_without_class_labels_are_refused(sourced):
    edit_params(
        sourced,
        evaluation__slices=["source"],
        evaluation__metric="loss",
        evaluation__mode="min",
        export__promote={},
    )
    edit_config(sourced, "int(self.labels[i]), known", "float(self.labels[i]), known")
    edit_config(
        sourced,
        'torch.nn.CrossEntropyLoss(reduction="none")',
        "lambda outputs, targets: (outputs.mean(1) - targets) ** 2",
    )
    with pytest.raises(errors.SliceError, match="needs class labels"):
        run(sourced)


def test_cost_is_logged_to_mlflow_but_not_written_to_outputs(project, monkeypatch):
    from renate_stages.tracking import Tracker

    logged = {}
    monkeypatch.setattr(Tracker, "log_metrics", lambda self, values, step: logged.update(values))
    edit_params(project, trainer__max_epochs=3, hyperparameters__batch_size=50)
    assert "cost" not in run(project)
    cost = logged["cost"]
    rows = files.read_json(project.data_metrics)["train"]["rows"]
    assert cost["new_examples"] == 3 * rows
    assert cost["steps"] == 3 * -(-rows // 50)
    state = sum(path.stat().st_size for path in project.state.rglob("*") if path.is_file())
    assert cost["state_mb"] == state / 1e6
    assert cost["peak_memory_mb"] > 1 and cost["training_seconds"] > 0


def test_evaluation_guide_documents_every_metrics_key(sourced):
    edit_params(sourced, evaluation__slices=["source"], evaluation__reference={1: 0.9})
    text = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    measured = run(sourced)
    blocks = {
        "accuracy": measured.pop("accuracy"),
        **{name: measured[name] for name in ("flips", "loss")},
    }
    for figure in {figure for block in blocks.values() for figure in block}:
        assert f".{figure}`" in text or f".{figure}." in text, figure
    for name in measured.keys() - {"update", "loss"}:
        assert f"`{name}." in text, name


# -- plasticity -----------------------------------------------------------------------------------


def test_plasticity_of_all_updates_is_in_metrics_state_plots_report_and_picture(sourced):
    edit_params(sourced, trainer__max_epochs=2)
    first = run(sourced)["plasticity"]
    assert 0 <= first["dead_units"] < 1 and first["feature_dimension"] == 128
    assert 1 < first["effective_rank"] < 128 and first["before"]["weight_norm"] > 0
    move_on(sourced)
    write_digits(sourced.incoming, 2)
    second = run(sourced)["plasticity"]
    assert second["before"]["weight_norm"] == first["weight_norm"]
    assert second["weight_norm"] != first["weight_norm"]
    export.run(sourced, quiet)
    columns, *rows = (sourced.plots / "plasticity.csv").read_text().splitlines()
    names = columns.split(",")[1:]
    for number, (row, figures) in enumerate(zip(rows, (first, second), strict=True), start=1):
        assert [float(cell) for cell in row.split(",")] == [number, *(figures[n] for n in names)]
    assert len((sourced.state / "plasticity.csv").read_text().splitlines()) == 1 + 4
    report = sourced.report.read_text(encoding="utf-8")
    assert "## Plasticity" in report and "plasticity.png" in report
    shown = f"{second['before']['effective_rank']:.4g} | {second['effective_rank']:.4g}"
    assert f"| effective rank of the features | {shown} |" in report


def test_forgetting_keeps_the_figures_of_plasticity(sourced):
    edit_params(sourced, trainer__max_epochs=1)
    run(sourced)
    before = (sourced.state / "plasticity.csv").read_bytes()
    move_on(sourced, update__kind="forget")
    assert "plasticity" not in run(sourced)
    assert (sourced.state / "plasticity.csv").read_bytes() == before


def test_state_of_an_older_release_has_no_figures_and_can_be_continued(sourced):
    edit_params(sourced, trainer__max_epochs=1)
    run(sourced)
    (sourced.state / "plasticity.csv").unlink()
    manifest = files.read_json(sourced.state / "state.json")
    del manifest["files"]["plasticity.csv"]
    files.write_json(sourced.state / "state.json", manifest)
    move_on(sourced)
    write_digits(sourced.incoming, 2)
    assert run(sourced)["plasticity"]["before"]["weight_norm"] > 0
    _, row = (sourced.plots / "plasticity.csv").read_text().splitlines()
    assert row.startswith("2,")


def test_measuring_plasticity_changes_no_other_byte(sourced, monkeypatch):
    edit_params(sourced, trainer__max_epochs=2)
    run(sourced)

    def others() -> dict[str, bytes]:
        found = [path for path in sourced.state.rglob("*") if path.is_file()]
        own = ("plasticity.csv", "state.json")
        return {str(path): path.read_bytes() for path in found if path.name not in own}

    measured = others()
    monkeypatch.setattr(plasticity.PlasticityProbe, "measure", lambda *_: None)
    train.run(sourced, quiet)
    assert not (sourced.state / "plasticity.csv").exists()
    assert others() == measured
