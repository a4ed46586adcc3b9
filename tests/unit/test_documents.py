"""Documents match the code: commands, params, learners, examples and tables."""

from __future__ import annotations

import inspect
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from renate_stages import run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.cli import remote
from renate_stages.cli.main import app
from renate_stages.data.ingest import ingest
from renate_stages.data.modules.registry import MODULES
from renate_stages.data.modules.table import Table
from renate_stages.files import yaml_file
from renate_stages.learners import registry
from renate_stages.learners.base import hyperparameters_of
from renate_stages.memory import POLICIES, size_in_bytes
from renate_stages.params import Params, ShiftParams, ShouldUpdateParams
from renate_stages.params.domains import KINDS
from renate_stages.params.remote import RemoteParams, SageMakerParams
from renate_stages.params.schedulers import SCHEDULERS
from renate_stages.shift import DETECTORS
from renate_stages.simulation import SimulationParams
from renate_stages.user.named import OF_PIPELINE

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LEARNERS = (REPOSITORY / "docs" / "learners.md").read_text(encoding="utf-8")
SHIFT = (REPOSITORY / "docs" / "shift.md").read_text(encoding="utf-8")
GUIDE = (REPOSITORY / "docs" / "memory-and-state.md").read_text(encoding="utf-8")
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/avalanche.md",
    "docs/data.md",
    "docs/distributed.md",
    "docs/gate.md",
    "docs/evaluation.md",
    "docs/images.md",
    "docs/inputs.md",
    "docs/learners.md",
    "docs/memory-and-state.md",
    "docs/migration.md",
    "docs/mlflow.md",
    "docs/models.md",
    "docs/recipes.md",
    "docs/reliability.md",
    "docs/remote.md",
    "docs/sagemaker.md",
    "docs/scaling.md",
    "docs/security.md",
    "docs/serving.md",
    "docs/shift.md",
    "docs/tables.md",
    "docs/tasks.md",
    "docs/text.md",
    "docs/tuning.md",
    "docs/which-learner.md",
    "template/{{cookiecutter.project_slug}}/README.md",
]
COMMANDS = set(get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]


def test_readme_has_at_most_200_lines():
    assert len(README.splitlines()) <= 200


def test_learner_guide_lists_every_learner_and_the_shared_hyperparameters():
    for name in registry.LEARNERS:
        assert f"\n| {name} | " in LEARNERS, name
    for name in hyperparameters_of(registry.learner_class("ER")):
        assert f"`{name}`" in LEARNERS, name


def test_custom_learner_of_the_learner_guide_can_be_trained(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", LEARNERS, re.DOTALL)
    (tmp_path / "guide_learner.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    done, source = None, None
    for number in (1, 2):
        write_digits(tmp_path / "data", number)
        target = tmp_path / f"state-{number}"
        done = run_training_job(
            {"memory_size": 50, "hidden_size": 8},
            updater="guide_learner:MyReplay",
            max_epochs=1,
            config_file=REPOSITORY / "renate_config.py",
            data_path=tmp_path / "data",
            input_state_url=source,
            output_state_url=target,
        )
        source = target
    del sys.modules["guide_learner"]
    assert done is not None and done.curves[0]["train_FeatureDistillation"] > 0


def test_distributed_guide_lists_every_learner_and_trainer_setting():
    guide = (REPOSITORY / "docs" / "distributed.md").read_text(encoding="utf-8")
    table = guide[guide.index("| learner |") :].split("\n\n")[0]
    for name in registry.LEARNERS:
        assert re.search(rf"^\| .*\b{re.escape(name)}[ ,]", table, re.MULTILINE), name
    settings = ("devices", "num_nodes", "strategy", "precision", "accumulate_grad_batches")
    for name in (*settings, "num_workers", "prefetch", "data_on_device"):
        assert f"`{name}`" in guide, name
    for given in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL):
        Params.parse(yaml_file.parse(given, "the guide"))


def test_settings_of_the_guide_to_changes_are_valid():
    guide = (REPOSITORY / "docs" / "which-learner.md").read_text(encoding="utf-8")
    found = [
        yaml_file.parse(each, "it") for each in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    ]
    assert len(found) >= 4
    for given in found:
        if "learners" in given:
            SimulationParams.model_validate(given)
        else:
            Params.parse(given)


def test_shift_guide_lists_every_detector_and_rule():
    for name in (*DETECTORS, *ShouldUpdateParams.model_fields, *ShiftParams.model_fields):
        assert f"`{name}`" in SHIFT or f"`shift.{name}`" in SHIFT, name


def test_code_of_the_shift_guide_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", SHIFT, re.DOTALL)):
        (tmp_path / f"{number}.py").write_text(code)
    customers = runpy.run_path("0.py")["Customers"]
    named = {*customers.categorical_features, *customers.excluded_features}
    assert len(customers.feature_names) == 4 and named < {*customers.feature_names}
    runpy.run_path("2.py")
    assert runpy.run_path("1.py")["feature_fn"]()(torch.ones(3, 2, 2)).tolist() == [[1.0]] * 3


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_make_targets_in_documents_exist(name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    for command in re.findall(r"(?:^|[`(\s])renate-stages ([a-z-]+)", text):
        assert command in COMMANDS, command
    targets = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    if not name.startswith("template"):
        for target in re.findall(r"(?:^|`)\s*make ([a-z-]+)", text, re.MULTILINE):
            assert f"\n{target}:" in targets, target


def block(text: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_data_module_of_the_memory_guide_can_be_ingested(tmp_path):
    (tmp_path / "reviews.py").write_text(block(GUIDE, "python"))
    module = runpy.run_path(str(tmp_path / "reviews.py"))["Reviews"](tmp_path)
    module.setup()
    store = ingest(module.train_data(), tmp_path / "s", 1, "train", ragged=module.ragged_fields)
    assert store.spec is not None and set(store.spec.metadata) == {
        f"meta.{name}" for name in ("id", "source", "update", "length")
    }
    assert [len(row) for row in store.column("inputs.tokens")] == [3, 1]


def test_params_of_the_memory_guide_are_valid_and_every_policy_is_listed():
    given = yaml_file.parse(block(GUIDE, "yaml"), "the guide")
    params = Params.parse(given)
    assert params.retention.model_dump() == given["retention"]
    table = GUIDE[GUIDE.index("| `memory_policy`") :].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {"memory_policy", *POLICIES}
    for size in re.findall(r"[\d.]+[KMG]i?B", GUIDE[: GUIDE.index("retention:")]):
        assert size_in_bytes(size) > 1


def test_table_guide_lists_every_setting_and_figure_and_its_code_runs(tmp_path, monkeypatch):
    guide = (REPOSITORY / "docs" / "tables.md").read_text(encoding="utf-8")
    settings = {*inspect.signature(Table).parameters} - {*OF_PIPELINE, "frame"}
    table = guide[guide.index("| setting |") :].split("\n\n")[0]
    assert {
        name
        for row in re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    } == settings
    for given in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL):
        Params.parse(yaml_file.parse(given, "the guide"))
    monkeypatch.chdir(tmp_path)
    code = guide[guide.index("## From Python") :]
    found = runpy.run_path(_script(tmp_path, block(code, "python")))["module"]
    assert found.preprocessing.columns == {"age": "numeric"}
    assert len(found.train_data()) == 3


def test_list_of_data_modules_has_an_example_of_each():
    listed = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    examples = [
        Params.parse(yaml_file.parse(given, "the list"))
        for given in re.findall(r"```yaml\n(.*?)```", listed, re.DOTALL)
    ]
    assert [each.named.module for each in examples] == sorted(MODULES)
    for each in examples:
        each.named.functions(lambda: None)  # refuses settings that do not exist
    for name in MODULES:
        assert f"\n| `{name}` | " in listed, name


def _script(folder: Path, code: str) -> str:
    (folder / "guide.py").write_text(code)
    return str(folder / "guide.py")


def test_tuning_guide_lists_every_search_space_and_scheduler():
    guide = (REPOSITORY / "docs" / "tuning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", guide, re.MULTILINE)
    listed = dict(rows)
    assert {name: listed.get(name) for name in SCHEDULERS} == {
        name: entry.summary for name, entry in SCHEDULERS.items()
    }
    assert all(f"`{kind}: [" in guide for kind in KINDS)


def test_gate_guide_lists_every_figure_with_valid_limits():
    guide = (REPOSITORY / "docs" / "gate.md").read_text(encoding="utf-8")
    given = yaml_file.parse(block(guide, "yaml"), "the guide")
    assert len(Params.parse(given).rules) == 13
    rows = re.findall(r"^\| `(\w+)` \| .* \| (`.*`) \|$", guide, re.MULTILINE)
    promote = {
        name.replace("METRIC", "accuracy"): dict.fromkeys(re.findall(r"`(\w+)`", limits), 0.5)
        for name, limits in rows
    }
    given = {"export": {"promote": promote}, "evaluation": {"slices": ["camera"]}}
    assert len(promote) == 8 and Params.parse(given).rules


def test_sagemaker_guide_lists_every_param_and_only_existing_commands():
    guide = (REPOSITORY / "docs" / "sagemaker.md").read_text(encoding="utf-8")
    for name in (*SageMakerParams.model_fields, *RemoteParams.model_fields):
        assert f"`{name}`" in guide or f"{name}:" in guide, name
    for command in re.findall(r"renate-stages remote (\w+)", guide):
        assert command in {each.callback.__name__ for each in remote.app.registered_commands}


def test_sagemaker_and_boto3_are_imported_only_in_their_own_module():
    allowed = {"sagemaker": "remote/sagemaker.py", "boto3": "remote/sagemaker.py"}
    library = REPOSITORY / "renate_stages"
    for path in library.rglob("*.py"):
        for name, importer in allowed.items():
            known = re.search(rf"^\s*(from|import) {name}\b", path.read_text("utf-8"), re.MULTILINE)
            assert not known or path == library / importer, (path, name)


def test_dvc_yaml_calls_existing_commands():
    pipeline = (REPOSITORY / "dvc.yaml").read_text(encoding="utf-8")
    stages = re.findall(r"cmd: renate-stages ([a-z-]+)", pipeline)
    assert len(stages) == 5 and set(stages) <= COMMANDS


def run_program(path: Path, monkeypatch, capsys) -> str:
    """Run a program as `python PATH` does, but in this process; return what it prints."""
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.syspath_prepend(path.parent)
    imported = set(sys.modules)
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, capsys.readouterr().out
    for name in sys.modules.keys() - imported:
        if (path.parent / f"{name}.py").is_file():
            del sys.modules[name]
    return capsys.readouterr().out


def test_python_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    shutil.copy(REPOSITORY / "renate_config.py", tmp_path)
    write_digits(tmp_path / "data" / "incoming", 1)
    program = tmp_path / "example.py"
    program.write_text(example[1])
    monkeypatch.chdir(tmp_path)
    assert "'overall'" in run_program(program, monkeypatch, capsys)
    assert (tmp_path / "states" / "1" / "state.json").is_file()


def test_learner_table_of_the_readme_matches_the_benchmark_and_its_targets(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    out = run_program(REPOSITORY / "benchmarks" / "forgetting.py", monkeypatch, capsys)
    printed = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")][1:]
    written = [line.split(" | ") for line in README.splitlines()]
    assert len(printed) == 3
    for learner, *figures in printed:
        row = next(each for each in written if each[0] == learner)
        for found, stated in zip(figures[:-1], row[1:-1], strict=True):
            assert float(found) == pytest.approx(float(stated), abs=0.03), learner
        assert figures[-1] == row[-1]
        least, most = {"| ER": (0.90, 1), "| Joint": (0.94, 1), "| FineTuning": (0, 0.50)}[learner]
        assert least <= float(figures[0]) <= most
        assert float(figures[3]) > 0.9, "the newest classes must be learned"


def test_tables_of_the_scaling_guide_match_the_benchmark_output():
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "scaling.py"), "--table"],
        capture_output=True,
        text=True,
        check=True,
    )
    guide = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert len(done.stdout.splitlines()) > 40 and done.stdout.strip() in guide


def test_architecture_guide_lists_the_layers_of_the_import_linter():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    guide = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders, _, additions = guide.partition("## Folders")[2].partition("## To add")
    listed = re.findall(r"^\| `(\w+)` \|", folders, re.MULTILINE)
    assert listed == [each.strip() for layer in layers for each in layer.split("|")]
    library = REPOSITORY / "renate_stages"
    for place in re.findall(r"`(\w+/[\w/]*(?:\.py)?)`", additions):
        assert (library / place).exists(), place
