"""Measuring the champion with its own code on the update's holdouts; it may be broken."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from small_project import edit_config, edit_params, move_on, snapshot
from torch import nn

from renate_stages.evaluation.widened import Widened
from renate_stages.export.exported import Exported
from renate_stages.gate.challenge import _Holdouts
from renate_stages.gate.verdict import Verdict
from renate_stages.models.module import RenateWrapper
from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State


def quiet(message: str) -> None:
    pass


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def updated(project, made_once) -> Project:
    """Update 1, trained but not exported; its inputs are scaled by a user file."""
    return made_once(project, make_update)


def make_update(project) -> None:
    pipeline = project.pipeline.read_text()
    with_file = pipeline.replace(
        "      - renate_config.py\n", "      - renate_config.py\n      - scaling.py\n"
    )
    project.pipeline.write_text(with_file)
    (project.root / "scaling.py").write_text("FACTOR = 1 / 16\n")
    edit_config(project, "import numpy as np\n", "import numpy as np\nimport scaling\n")
    edit_config(project, " / 16", " * scaling.FACTOR")
    edit_params(project, trainer__max_epochs=8)
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)


def verdict_of(project) -> dict:
    export.run(project, quiet)
    return json.loads(project.verdict.read_text())


def promote_changed_copy(project) -> None:
    """Make the export the champion, with one file changed so that the two are not identical."""
    shutil.copytree(project.export, project.champion)
    (project.champion / "MODEL_CARD.md").write_text("Of another export")


def test_champion_is_measured_with_the_code_in_its_own_export(updated, monkeypatch):
    project = updated
    export.run(project, quiet)
    exported = Exported.read(project.export)
    assert (exported.update, exported.task_id) == (1, "default_task")
    assert exported.hyperparameters["hidden_size"] == 128
    assert (project.export / "scaling.py").read_text() == "FACTOR = 1 / 16\n"

    # A champion with the same weights: no change, and an interval of zero width.
    promote_changed_copy(project)
    before = snapshot(project)
    verdict = verdict_of(project)
    figure = verdict["figures"]["average_accuracy"]
    assert figure["value"] == figure["opponent"] > 0.9
    assert (figure["low"], figure["high"]) == (0, 0)
    assert verdict["figures"]["negative_flips"]["value"] == 0
    exported = {name: text for name, text in before.items() if name.startswith("export/")}
    assert exported.items() <= snapshot(project).items(), "export/ does not depend on the champion"

    # The project's file is now wrong; the champion uses its own copy, which is still right.
    import sys

    (project.root / "scaling.py").write_text("FACTOR = 0.0\n")
    monkeypatch.delitem(sys.modules, "scaling")
    verdict = verdict_of(project)
    ruined = verdict["figures"]["average_accuracy"]
    assert ruined["opponent"] == figure["opponent"] and ruined["value"] < 0.5
    assert not verdict["passed"] and verdict["problem"] is None
    assert sys.modules["scaling"].FACTOR == 0.0, "the project's own modules are back"


def test_champion_that_cannot_be_built_is_reported_in_the_verdict(updated):
    project = updated
    export.run(project, quiet)
    shutil.copytree(project.export, project.champion)
    code = (project.champion / "renate_config.py").read_text()
    broken = code.replace("import scaling\n", "import scaling\nimport a_package_of_then\n")
    (project.champion / "renate_config.py").write_text(broken)
    verdict = verdict_of(project)
    assert "No module named 'a_package_of_then'" in verdict["problem"]
    assert str(project.root) not in verdict["problem"]
    assert verdict["champion_update"] == 1 and not verdict["passed"]
    assert "could not be measured" in project.report.read_text()


def test_update_that_is_champion_is_not_compared_with_itself(updated):
    """`promote` changes champion/, a dependency of `export`, so the next `dvc repro` reruns it."""
    project = updated
    promote = {"average": {"min": 0.5, "max_drop": 0.0}, "classes": {"min": 0.5, "max_drop": 0.0}}
    edit_params(project, export__promote=promote)
    export.run(project, quiet)
    shutil.copytree(project.export, project.champion)
    verdict = Verdict(verdict_of(project))
    assert verdict.passed and verdict.is_champion
    assert verdict.headline == "update 1, the champion: passed: 2 rules, 2 not applied"
    outcomes = {row[0]: row[3:] for row in verdict.table()}
    assert outcomes["average_accuracy max_drop"] == ("unknown", "", "is the champion")
    assert outcomes["classes max_drop"] == ("unknown", "", "is the champion")
    assert outcomes["classes min"][2].startswith("passed by")
    report = project.report.read_text()
    assert "`git show COMMIT:reports/update.md`" in report
    assert "champion (update" not in report, "no column that repeats the same figures"

    # A retrained update has the same number but is another model.
    (project.champion / "model.safetensors").write_bytes(b"another")
    assert not verdict_of(project)["is_champion"]


def test_class_rules_apply_without_a_champion(updated):
    edit_params(updated, export__promote={"classes": {"min": 0.5, "max_drop": 0.0}})
    verdict = verdict_of(updated)
    rules = verdict["rules"]["classes"]
    assert verdict["passed"] and rules["min"]["value"] > 0.5 and rules["min"]["at"] in range(4)
    assert rules["max_drop"]["margin"] is None


def test_parents_model_is_measured_as_opponent_without_a_champion(updated, monkeypatch):
    """Its figures are those that `train` measured before it trained the model."""
    move_on(updated, export__promote={"average": {"max_drop": 0.0}, "negative_flips": {"max": 0.5}})
    for stage in (prepare, restore_state, tune, train):
        stage.run(updated, quiet)
    verdict = Verdict(verdict_of(updated))
    assert verdict.passed and verdict.opponent == "its parent, update 1"
    before = State.open(updated.state).evaluations().examined(2, "before")
    figures, measured = verdict.content["figures"], json.loads(updated.update_metrics.read_text())
    assert figures["overall_accuracy"]["opponent"] == pytest.approx(before.together["accuracy"])
    average = sum(each.metrics["accuracy"] for each in before.values()) / 2
    assert figures["average_accuracy"]["opponent"] == pytest.approx(average)
    for side in ("negative", "positive"):
        value = figures[f"{side}_flips"]["value"]
        assert value == pytest.approx(measured["flips"][side])
    report = updated.report.read_text()
    assert "| rule | allowed | update | parent |" in report
    assert "champion" not in report

    def fails(*args, **kwargs):
        raise RuntimeError("no room")

    monkeypatch.setattr(_Holdouts, "measure", raise_for_parent(updated, fails))
    printed: list[str] = []
    export.run(updated, printed.append)
    assert "gate: its parent, update 1, could not be measured: no room" in printed
    assert Verdict.read(updated.verdict).refused


def raise_for_parent(project, fails):
    """Return a `_Holdouts.measure` that fails for the model of the parent's state."""
    measure = _Holdouts.measure

    def measure_or_fail(self, user, values, folder, width=0):
        return (fails if folder == project.restored else measure)(self, user, values, folder, width)

    return measure_or_fail


def test_unknown_classes_get_the_lowest_logits_and_a_finite_loss():
    model = RenateWrapper(nn.Linear(2, 3))
    outputs = Widened(model, 5)
    logits = model(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 5) and outputs.seen == 3
    assert (logits[:, 3:] < logits[:, :3].min(dim=1, keepdim=True).values).all()
    loss = nn.functional.cross_entropy(logits, torch.full((4,), 4))
    assert loss.isfinite() and loss > 15
    Widened(model, 2)  # outputs that are wide enough are unchanged
    assert model(torch.zeros(1, 2)).shape == (1, 5)


def test_slice_rules_use_the_holdouts_and_the_report_shows_champion_figures(sourced):
    """Checks rules on an existing and an unknown slice, from params.yaml to the report."""
    promote = {
        "slices": {
            "max_drop": 0.0,
            "source": {"us": {"min": 0.5, "max_drop": 0.1}, "usa": {"max_drop": 0.5}},
        },
        "calibration_error": {"max": 0.9, "max_rise": 0.0},
    }
    edit_params(
        sourced, evaluation__slices=["source"], export__promote=promote, trainer__max_epochs=8
    )
    for stage in (prepare, restore_state, tune, train):
        stage.run(sourced, quiet)
    failure = "FAILED: no row of the holdouts is in this slice, did you mean 'us'? (known: eu, us)"
    alone = Verdict(verdict_of(sourced))
    results = {row[0]: row[5] for row in alone.table()}
    assert results["slices.source.usa max_drop"] == failure
    assert results["slices max_drop"] == results["calibration_error max_rise"] == "no other model"
    assert alone.failures == [f"slices.source.usa max_drop: {failure}"]
    assert not alone.passed, "a rule on an unknown slice never passes"
    measured = json.loads(sourced.update_metrics.read_text())
    outcome = alone.content["rules"]["slices.source.us"]["min"]
    assert outcome["value"] == pytest.approx(measured["slices"]["source"]["us"])
    error = alone.content["rules"]["calibration_error"]["max"]["value"]
    assert error == pytest.approx(measured["calibration"]["error"])
    assert (
        "champion"
        not in sourced.report.read_text()
        .partition("## Over all")[0]
        .partition("## accuracy on every holdout")[2]
    ), "the report has no champion column without a champion"

    promote_changed_copy(sourced)
    both = Verdict(verdict_of(sourced))
    outcome = both.content["rules"]["slices"]["max_drop"]
    assert outcome["value"] == outcome["opponent"] and outcome["at"] in ("source eu", "source us")
    assert (outcome["low"], outcome["high"]) == (0, 0)
    assert both.failures == [f"slices.source.usa max_drop: {failure}"]
    report = sourced.report.read_text()
    assert f"| slices.source.usa max_drop | 0.5000 | unknown | unknown |  | {failure} |" in report
    assert "| champion (update 1) | change from champion |" in report
    (row,) = [line for line in report.splitlines() if line.startswith("| update 1 |")]
    value = f"{measured['accuracy']['overall']:.4f}"
    assert row.endswith(f"| {value} | +0.0000 |")


def test_report_omits_champion_figures_when_the_parent_is_champion(updated):
    project = updated
    export.run(project, quiet)
    promote_changed_copy(project)
    exported = Exported.read(project.export)
    replace(exported, state=State.open(project.parent).identity).write(project.champion)
    export.run(project, quiet)
    report = project.report.read_text()
    assert "The champion is the parent's model." in report
    assert "champion (update" not in report and "change from champion" not in report
