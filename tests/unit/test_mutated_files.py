"""Readers of small files on mutated files: usable content, or a `RenateStagesError`.

`tests/pipeline/test_mutated_projects.py` runs whole commands on mutated files; the readers here
read thousands in seconds. A failure names the seed of the mutation.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mutations import Mutator
from small_project import REPOSITORY
from small_results import results_of

from renate_stages import files, lineage
from renate_stages.errors import RenateStagesError
from renate_stages.evaluation import history
from renate_stages.evaluation.plasticity_history import FIGURES, PlasticityHistory
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.export.exported import Exported
from renate_stages.export.program_files import read_description
from renate_stages.files import typed, yaml_file
from renate_stages.gate.verdict import Verdict, section
from renate_stages.lineage import settings
from renate_stages.lineage.intent import read_intent
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import EvaluationParams, Params
from renate_stages.project import Project
from renate_stages.reporting import change, plasticity_plots, plots, report, update_pictures
from renate_stages.reporting.data_section import data_section
from renate_stages.reporting.search_plots import Searched, write_search_plots
from renate_stages.reporting.shift_picture import COLUMNS as SHIFT_COLUMNS
from renate_stages.shift.data_metrics import DataMetrics
from renate_stages.shift.decision import decide
from renate_stages.state.inputs import read_tuned
from renate_stages.tuning.history import History
from renate_stages.tuning.outcome import Search

MD5 = "2d2e6987d167b463216ecd37c24b13db.dir"
CHANGE = {"low": -0.1, "high": 0.1}
OUTCOME = {
    "value": 0.8,
    "opponent": 0.9,
    "low": -0.2,
    "high": 0.1,
    "at": 1,
    "allowed": 0.02,
    "percent": False,
    "margin": -0.08,
    "passed": False,
    "why": None,
}
VERDICT = {
    "passed": False,
    "update": 3,
    "champion_update": 2,
    "is_champion": False,
    "against": "champion",
    "parent_update": None,
    "problem": None,
    "rules": {
        "average_accuracy": {"max_drop": OUTCOME},
        "classes": {"min": {**OUTCOME, "at": "7"}},
    },
    "figures": {"average_accuracy": {"value": 0.8}},
}
TEST = {"corrected_p_value": 0.001, "effect_size": 0.5, "p_value": 0.0005, "statistic": 3.5}
DATA = {
    "train": {"bytes": 700, "classes": {"1": 5, "2": 5}, "rows": 10},
    "val": {"bytes": 70, "rows": 1},
    "test": {"bytes": 70, "rows": 1},
    "forgotten": {"rows": 0},
    "update": 3,
    "labels": {"new": {"2": 5}, "new_rows": 5, "differ_only_in_case": {"a": "A"}},
    "shift": {
        "alarms": 1,
        "features": {"compared": 4, "most_shifted": "[1, 2]", "shifted": 2},
        "model": {"accuracy": 0.5},
        "parent": {"accuracy": 0.9},
        "interval": {"low": 0.4, "high": 0.6},
        "columns": {"age": {"distance": 0.1, "p_value": 0.5, "psi": 0.02, "missing_change": 0.0}},
        "thresholds": {"age": TEST},
        "estimated_performance": {
            "accuracy": 0.5,
            "rows": 4,
            "error": 0.1,
            "holdout": {"1": {"estimated": 0.6, "accuracy": 0.5}},
        },
        "tests": {"ks": TEST, "mmd": TEST},
    },
}
HEADLINE = {
    "average": 0.8,
    "overall": 0.8,
    "change": 0.1,
    "change_on_earlier": -0.1,
    "holdout": {"1": 0.7, "3": 0.9},
    "interval": {"overall": CHANGE, "change": CHANGE, "change_on_earlier": CHANGE},
}
UPDATE = {
    "accuracy": HEADLINE,
    "loss": {"average": 0.5, "overall": 0.5, "holdout": {"1": 0.5}},
    "calibration": {"error": 0.1, "holdout": {"1": 0.1}},
    "classes": {"1": 0.5, "2": 0.7},
    "slices": {"source": {"eu": 0.5}},
    "flips": {"negative": 0.1, "positive": 0.2, "holdout": {"1": {"negative": 0.1, "positive": 0}}},
    "memory": {"rows": 3},
    "training": {"epochs": 1, "steps": 12},
    "update": 3,
}
SEARCH = {
    "searched": True,
    "scheduler": "rush",
    "epochs": 2,
    "ended_by": "max_trials",
    "history": ["a note"],
    "not_repeatable_because": [],
    "trials": {"completed": 2},
    "objective": {"metric": "accuracy", "mode": "max", "over": "union"},
    "best": {"trial": 0, "epoch": 1, "value": 0.4, "configuration": {"learning_rate": 0.1}},
}
EXPORTED = {
    "schema": 1,
    "update": 2,
    "state": "0" * 64,
    "task_id": "default_task",
    "hyperparameters": {"learning_rate": 0.1},
    "figures": {"average_accuracy": 0.9},
}
PROGRAM = {
    "inputs": [{"dtype": "float32", "name": None, "shape": [None, 8, 8]}],
    "outputs": [{"dtype": "float32", "name": None, "shape": [None, 10]}],
    "program": "model.pt2",
    "task_id": "default_task",
    "transforms": {"test_transform": None},
}
INTENT = {
    "command": "renate-stages next",
    "head": "0" * 40,
    "place": "main",
    "tag": "update-3",
    "files": ["parent.dvc"],
    "pointers": ["parent.dvc"],
    "branch": None,
    "start": None,
    "written": {"parent.dvc": "0" * 64},
}
LOCK = f"""\
schema: '2.0'
stages:
  train:
    cmd: renate-stages train
    deps:
    - path: parent-state/memory
      hash: md5
      md5: {MD5}
      size: 5
      nfiles: 2
    outs:
    - path: state
      hash: md5
      md5: {MD5}
      size: 9
      nfiles: 4
  export:
    cmd: renate-stages export
    outs:
    - path: export
      md5: {MD5}
      size: 9
      nfiles: 4
"""
CHAMPION = f"""\
outs:
- md5: {MD5}
  size: 9
  nfiles: 4
  hash: md5
  path: champion
meta:
  update: 2
  state: abc
  replaced:
  - {{md5: {MD5}, size: 9, nfiles: 4, update: 0, state: ''}}
"""
TEXTS = {
    "params.yaml": (REPOSITORY / "params.yaml").read_text(),
    "spaces/params.yaml": """\
update: {number: 2, parent: 1}
learner: {choice: [ER, DER]}
hyperparameters:
  learning_rate: {loguniform: [0.001, 1.0]}
  batch_size: {choice: [16, 32]}
  memory_size: {lograndint: [10, 1000]}
  momentum: {finrange: [0.0, 0.9, 4]}
  max_epochs: {ordinal: [1, 2, 5]}
tuning: {scheduler: asha, scheduler_arguments: {grace_period: 1}, max_time: 30 min}
export: {promote: {average: {min: 0.5, max_drop: 0.1}, classes: {max_drop: 0.1, 7: {min: 0.8}}}}
remote: {backend: sagemaker, url: s3://bucket/x, sagemaker: {role: r, image_uri: i}}
""",
    "dvc.yaml": (REPOSITORY / "dvc.yaml").read_text(),
    "tuned.yaml": "hyperparameters: {batch_size: 32, learning_rate: 0.1}\nlearner: ER\nmax_epochs: 2\n",
    "forget.yaml": f"ids: ['{'0' * 32}']\nwhere:\n- source == 'eu' and update < 3\n",
    "champion.dvc": CHAMPION,
    "dvc.lock": LOCK,
    "reports/verdict.json": json.dumps(VERDICT),
    "metrics/data.json": json.dumps(DATA),
    "metrics/update.json": json.dumps(UPDATE),
    "metrics/shift.csv": 'feature,distance,p_value,mean_change,weight\n"[1, 2]",0.5,0.01,-1.5,\n',
    "plots/confusion.csv": "actual,predicted\n0,0\n0,1\n",
    "plots/classes.csv": "class,accuracy,rows\n0,0.5,10\n",
    "plots/learning_curve.csv": "epoch,step,train_loss,val_loss\n1,12,0.5,0.4\n2,24,0.4,\n",
    "work/tuning/search.json": json.dumps(SEARCH),
    "work/tuning/tuning_history.csv": "update,trial,status,epoch,steps,config.learner,"
    'config.learning_rate,config.x,metric.accuracy\n3,0,completed,1,12,ER,0.1,"[1, 2]",0.5\n'
    "3,1,failed,0,0,ER,0.2,a,\n",
    "parent-state/evaluations.csv": "update,phase,holdout,metric,value,rows\n"
    "3,before,1,accuracy,0.7,10\n3,after,1,accuracy,0.5,10\n3,after,3,accuracy,0.5,10\n",
    "parent-state/plasticity.csv": f"update,phase,{','.join(FIGURES)}\n"
    "3,before,0.1,0.05,40.5,128\n3,after,,0.06,,\n",
    "plots/plasticity.csv": f"update,{','.join(FIGURES)}\n2,0.1,0.05,40.5,128\n3,,0.06,,\n",
    "export/export.json": json.dumps(EXPORTED),
    "export/program.json": json.dumps(PROGRAM),
    ".renate/intent.json": json.dumps(INTENT),
    ".dvc/config": "[core]\n    remote = local\n['remote \"local\"']\n    url = ../../storage\n",
}


def read_params(path: Path) -> None:
    params = Params.load(path)
    fixed = params.fixed()
    for each in (params, fixed):
        files.digest(each.model_dump(mode="json"))
    assert params.rules is not None and params.objective


def read_and_fix(path: Path) -> None:
    fixed = Params().fixed(read_tuned(path))
    files.digest(fixed.model_dump(mode="json"))


def read_lock(path: Path) -> None:
    text = yaml_file.text(path)
    for key in ("deps", "outs"):
        list(lineage.records.entries(text, key))
    lineage.export_entry(text)
    lineage.judged_champion(text)
    lineage.verdict_hash(text)


def read_champion(path: Path) -> None:
    pointer = lineage.ChampionPointer.parse(yaml_file.text(path))
    pointer.text()
    if pointer.replaced:
        pointer.predecessor()


def read_pipeline(path: Path) -> None:
    for stage in ("prepare", "tune", "train", "export"):
        lineage.StageDefinition.read(Project(path.parent), stage)


def read_verdict(path: Path) -> None:
    verdict = Verdict.read(path)
    assert verdict.headline and "\n".join(section(verdict)) and verdict.failures is not None


def read_data(path: Path) -> None:
    data = DataMetrics.read(path)
    params = Params.parse({"update": {"number": 3, "parent": 2}, "should_update": {"age": 3}})
    assert list(map(str, decide(params, data, 5.0).rulings))
    "\n".join(data_section(data))


HISTORY = history.EvaluationHistory().with_update(
    3, "after", results_of({n: {"accuracy": 0.5} for n in (1, 3)}, {1: 5, 3: 5})
)


def read_update(path: Path) -> None:
    figures = read_update_metrics(path)
    change.verdict(HISTORY, 3, EvaluationParams(), figures)
    parts = (report._weakest(figures), report._training_figures(figures))
    assert parts and report._holdout_table(HISTORY, 3, "accuracy", figures, None)


def read_search(path: Path) -> None:
    "\n".join(report._search(Search.read(path)))
    shutil.rmtree(path.parent / "plots", ignore_errors=True)
    write_search_plots(path.parent / "plots", Searched.read(path.parent, 3))


def read_trials(path: Path) -> None:
    found = History.read(path)
    space = Params.parse({"hyperparameters": {"learning_rate": {"uniform": [0.0, 1.0]}}})
    experience = found.usable(space.search_space, "accuracy", "max")
    experience.best(3)
    found.write(path.with_name("again.csv"))


def read_evaluations(path: Path) -> None:
    found = history.EvaluationHistory.read(path)
    for update in found.matrix("accuracy"):
        found.summary(update, "accuracy")


def read_interrupted(path: Path) -> None:
    project = Project(path.parents[1])
    assert project.interrupted
    assert read_intent(project)


def read_settings(path: Path) -> None:
    project = Project(path.parents[1])
    settings.cache_folder(project)
    settings.unsettled_remote(project)


def table(columns: dict[str, type], rest: type = str) -> Callable[[Path], object]:
    return lambda path: typed.read_table(path, columns, "a table", "a cure", rest=rest)


READERS: dict[str, Callable[[Path], object]] = {
    "params.yaml": read_params,
    "spaces/params.yaml": read_params,
    "dvc.yaml": read_pipeline,
    "tuned.yaml": read_and_fix,
    "forget.yaml": lambda path: ForgetList.read(path).text(),
    "champion.dvc": read_champion,
    "dvc.lock": read_lock,
    "reports/verdict.json": read_verdict,
    "metrics/data.json": read_data,
    "metrics/update.json": read_update,
    "metrics/shift.csv": table(SHIFT_COLUMNS),
    "plots/confusion.csv": update_pictures._read,
    "plots/classes.csv": update_pictures._read,
    "plots/learning_curve.csv": lambda path: plots.read_curves(path.parent),
    "work/tuning/search.json": read_search,
    "work/tuning/tuning_history.csv": read_trials,
    "parent-state/evaluations.csv": read_evaluations,
    "parent-state/plasticity.csv": lambda path: PlasticityHistory.read(path).summary(3),
    "plots/plasticity.csv": table(plasticity_plots.COLUMNS),
    "export/export.json": lambda path: Exported.read(path.parent),
    "export/program.json": lambda path: read_description(path.parent),
    ".renate/intent.json": read_interrupted,
    ".dvc/config": read_settings,
}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.chdir(tmp_path)
    for name, text in TEXTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(tmp_path)


def mutate_and_read(project: Project, name: str, seeds: range) -> list[str]:
    """Mutate a file with each seed and read it; return the errors of the reader."""
    path, whole = project.root / name, TEXTS[name].encode()
    refusals = []
    for seed in seeds:
        how, content = Mutator(random.Random(f"{name} {seed}")).mutate(name, whole)
        path.write_bytes(content)
        try:
            READERS[name](path)
        except RenateStagesError as error:
            assert str(error)
            refusals.append(str(error))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {name}: {how}") from error
    path.write_bytes(whole)
    assert not (project.root / "executed").exists(), "code in a file was executed"
    return refusals


@pytest.mark.parametrize("name", READERS)
def test_mutated_file_is_read_or_refused_by_name(project, name):
    READERS[name](project.root / name)
    refusals = mutate_and_read(project, name, range(25))
    own = "condition" if name == "forget.yaml" else "tuning_history.csv"  # other names
    assert refusals and all(Path(name).name in each or own in each for each in refusals)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_file_is_read_or_refused_after_many_mutations(project, name):
    assert mutate_and_read(project, name, range(25, 600))
