"""The champion is measured with its own code, on the update's holdouts; what it lacks is no error."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from small_project import edit_config, edit_params, snapshot
from torch import nn

from renate_stages.exported import Exported
from renate_stages.gate.challenge import _Widened
from renate_stages.models.module import RenateWrapper
from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune


def quiet(message: str) -> None:
    pass


@pytest.fixture
def updated(project) -> Project:
    """Update 1 up to its state; its inputs are scaled by a file of the user's own."""
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
    return project


def verdict_of(project) -> dict:
    export.run(project, quiet)
    return json.loads(project.verdict.read_text())


def test_a_champion_is_measured_with_its_own_code_of_its_own_time(updated, monkeypatch):
    project = updated
    export.run(project, quiet)
    exported = Exported.read(project.export)
    assert (exported.update, exported.task_id) == (1, "default_task")
    assert exported.hyperparameters["hidden_size"] == 128
    assert (project.export / "scaling.py").read_text() == "FACTOR = 1 / 16\n"

    # Against itself: nothing changed, and nothing of it is noise.
    shutil.copytree(project.export, project.champion)
    before = snapshot(project)
    verdict = verdict_of(project)
    figure = verdict["figures"]["average_accuracy"]
    assert figure["value"] == figure["champion"] > 0.9
    assert (figure["low"], figure["high"]) == (0, 0)
    assert verdict["figures"]["negative_flips"]["value"] == 0
    exported = {name: text for name, text in before.items() if name.startswith("export/")}
    assert exported.items() <= snapshot(project).items(), "export/ does not depend on the champion"

    # Today's file is wrong, and the champion's own still right: it alone reads it.
    import sys

    (project.root / "scaling.py").write_text("FACTOR = 0.0\n")
    monkeypatch.delitem(sys.modules, "scaling")
    verdict = verdict_of(project)
    ruined = verdict["figures"]["average_accuracy"]
    assert ruined["champion"] == figure["champion"] and ruined["value"] < 0.5
    assert not verdict["passed"] and verdict["problem"] is None
    assert sys.modules["scaling"].FACTOR == 0.0, "the project's own modules are back"


def test_a_champion_that_cannot_be_built_any_more_is_part_of_the_verdict(updated):
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


def test_classes_are_ruled_on_without_a_champion_too(updated):
    edit_params(updated, export__promote={"classes": {"min": 0.5, "max_drop": 0.0}})
    verdict = verdict_of(updated)
    rules = verdict["rules"]["classes"]
    assert verdict["passed"] and rules["min"]["value"] > 0.5 and rules["min"]["at"] in range(4)
    assert rules["max_drop"]["margin"] is None


def test_classes_that_a_model_does_not_know_are_least_likely_and_cost_a_finite_loss():
    model = RenateWrapper(nn.Linear(2, 3))
    outputs = _Widened(model, 5)
    logits = model(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 5) and outputs.seen == 3
    assert (logits[:, 3:] < logits[:, :3].min(dim=1, keepdim=True).values).all()
    loss = nn.functional.cross_entropy(logits, torch.full((4,), 4))
    assert loss.isfinite() and loss > 15
    _Widened(model, 2)  # of outputs that are wide enough nothing changes
    assert model(torch.zeros(1, 2)).shape == (1, 5)
