"""Names of labels through all five stages: plots, report, gate, memory, export."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from small_project import WITH_SOURCES, edit_config, edit_params, move_on, quiet

from renate_stages import errors
from renate_stages.actions.example_data import write_digits
from renate_stages.actions.import_model import write_imported
from renate_stages.cli.main import main
from renate_stages.models import MLP
from renate_stages.params import Params
from renate_stages.shift.data_metrics import DataMetrics
from renate_stages.shift.decision import decide
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State

NAMES = ('zero, "0"', "o|ne", "zwei/ü", "10", "four", "five", "six", "seven", "eight", "nine")
STAGES = (prepare, restore_state, tune, train, export)


@pytest.fixture
def named(project):
    """A project whose labels are names that CSV, Markdown and MLflow must escape."""
    items = f"NAMES = {NAMES!r}\n\n\n{WITH_SOURCES.lstrip()}".replace(
        "int(self.labels[i])", "NAMES[self.labels[i]]"
    )
    edit_config(project, "class DigitsDataModule", items)
    edit_config(project, "TensorDataset(images, labels)", "Sourced(images, labels)")
    edit_config(project, "import torch\n", "import torch\nimport torch.utils.data\n")
    edit_config(project, "num_outputs=10", "num_outputs=2")
    edit_params(project, trainer__max_epochs=8, hyperparameters__memory_size=100)
    return project


def run_all(project) -> None:
    for stage in STAGES:
        stage.run(project, quiet)


def figures_of_test(project) -> str:
    tests = json.loads(project.data_metrics.read_text())["shift"]["tests"]
    return f"{tests['label_chi2']['corrected_p_value']:.2g}"


def column(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def test_all_outputs_show_names_over_two_updates(named, capsys, monkeypatch):
    run_all(named)
    first = State.open(named.state).provenance.labels
    assert len(first) < len(NAMES)
    move_on(named)
    write_digits(named.incoming, 2)
    edit_params(named, export__promote={"classes": {first[0]: {"max_drop": 1.0}}})
    lines = []
    prepare.run(named, lines.append)
    counted = json.loads(named.data_metrics.read_text())["labels"]
    assert counted["new"] and not set(counted["new"]) & set(first)
    most = max(counted["new"], key=lambda name: counted["new"][name])
    (printed,) = (line for line in lines if line.startswith("new labels, "))
    assert f"{most} ({counted['new'][most]})" in printed
    content = {"update": {"number": 2, "parent": 1}}
    ruling = decide(Params.parse(content), DataMetrics.read(named.data_metrics), None).rulings[0]
    assert ruling.rule == "new_labels" and ruling.fires
    (tests,) = (line for line in lines if "shift against" in line)
    assert f"label_chi2 p {figures_of_test(named)}" in tests and "(corrected for" in tests
    run_all(named)
    names = State.open(named.state).provenance.labels
    assert names[: len(first)] == first and len(names) > len(first)
    assert set(column(named.plots / "classes.csv", "class")) == set(names)
    assert column(named.plots / "classes.csv", "class") == list(names)  # in their order
    assert set(column(named.plots / "confusion.csv", "actual")) == set(names)
    assert set(column(named.plots / "confusion.csv", "predicted")) <= set(names)
    assert set(column(named.plots / "memory.csv", "class")) <= set(names)
    figures = json.loads(named.update_metrics.read_text())
    assert set(figures["classes"]) == set(names)
    assert set(json.loads(named.data_metrics.read_text())["train"]["classes"]) <= set(names)
    rules = json.loads(named.verdict.read_text())["rules"]
    (rule,) = rules[f"classes.{first[0]}"].values()
    assert rule["at"] == first[0]
    assert rule["passed"] and rule["value"] == pytest.approx(figures["classes"][first[0]])
    labels = json.loads((named.export / "labels.json").read_text())
    assert labels["names"] == list(names) and labels["columns"] == len(names)
    report = named.report.read_text(encoding="utf-8")
    assert all(name.replace("|", "\\|") in report for name in names)
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["renate-stages", "memory"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert any(name in printed for name in names)


def test_rule_on_a_label_that_does_not_exist_is_refused_before_training(named):
    edit_params(named, export__promote={"classes": {"zwei/u": {"min": 0.5}}})
    for stage in STAGES[:3]:
        stage.run(named, quiet)
    with pytest.raises(errors.InvalidParamsError, match="'zwei/u' is not a label, did you mean"):
        train.run(named, quiet)
    assert not named.state.exists()


def test_rule_on_a_name_is_refused_if_labels_are_numbers(project):
    edit_params(project, export__promote={"classes": {"four": {"min": 0.5}}})
    for stage in STAGES[:3]:
        stage.run(project, quiet)
    with pytest.raises(
        errors.InvalidParamsError, match=r"'four' is not a label \(labels: whole numb"
    ):
        train.run(project, quiet)


def import_model(project, old_data: Path | None, order: list[str]) -> State:
    """Start from a model with two outputs, as `init --model` does."""
    torch.manual_seed(0)
    model = MLP(num_inputs=64, num_outputs=2, hidden_size=128)
    torch.save({k: v for k, v in model.state_dict().items() if k[0] != "_"}, project.root / "m.pt")
    shutil.rmtree(project.parent)
    project.parent.mkdir()
    edit_params(project, data__labels__order=order)
    params = Params.load(project.params)
    write_imported(project.parent, project, params, project.root / "m.pt", old_data)
    return State.open(project.parent)


def test_imported_model_gets_the_declared_names_and_grows(named):
    first = import_model(named, None, [NAMES[3], NAMES[0]])
    assert first.provenance.labels == (NAMES[3], NAMES[0])
    run_all(named)
    names = State.open(named.state).provenance.labels
    assert names[:2] == (NAMES[3], NAMES[0]) and len(names) == 4


def test_old_data_of_an_imported_model_needs_declared_names(named):
    with pytest.raises(errors.UnnamedLabelsError, match="numbered labels without names"):
        import_model(named, named.incoming, [])


def test_imported_model_needs_a_name_for_each_output(named):
    import_model(named, None, [])
    edit_params(named, data__labels__order=[NAMES[3]])
    for stage in STAGES[:3]:
        stage.run(named, quiet)
    with pytest.raises(
        errors.TooFewNamesError, match="lists 1 names, but the parent's model has 2"
    ):
        train.run(named, quiet)


@pytest.mark.slow  # starts the process from which trials are forked
def test_search_in_an_update_with_new_labels(named):
    run_all(named)
    move_on(named)
    write_digits(named.incoming, 2)
    space = {"uniform": [0.01, 0.1]}
    edit_params(named, hyperparameters__learning_rate=space, tuning__max_trials=2)
    run_all(named)
    assert len(State.open(named.state).provenance.labels) > 2


def test_forgetting_keeps_the_labels(named):
    run_all(named)
    names = State.open(named.state).provenance.labels
    move_on(named, update__kind="forget")
    run_all(named)
    assert State.open(named.state).provenance.labels == names
    move_on(named, update__kind="update")
    write_digits(named.incoming, 2)
    run_all(named)
    assert State.open(named.state).provenance.labels[: len(names)] == names
