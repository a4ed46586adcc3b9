"""The template renders to a whole project, whatever is chosen; the root is its default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException, OutputDirExistsException
from cookiecutter.main import cookiecutter

from renate_stages.params import Params

REPOSITORY = Path(__file__).parents[2]
FILES = {
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".github/workflows/should-update.yml",
    ".github/workflows/update.yml",
    ".gitignore",
    ".pre-commit-config.yaml",
    "Makefile",
    "README.md",
    "dvc.yaml",
    "forget.yaml",
    "params.yaml",
    "renate_config.py",
    "requirements.txt",
    "tests/test_config.py",
}


def bake(folder: Path, **answers: str) -> Path:
    """Generate a project in a folder; what cookiecutter keeps of the answers goes there too."""
    folder.mkdir(exist_ok=True)
    config = folder / "cookiecutter.yaml"
    config.write_text(json.dumps({"replay_dir": str(folder / "replay")}))
    baked = cookiecutter(
        str(REPOSITORY),
        directory="template",
        no_input=True,
        output_dir=str(folder),
        config_file=str(config),
        extra_context=answers,
    )
    return Path(baked)


@pytest.mark.parametrize("data", ["digits", "empty"])
@pytest.mark.parametrize("learner", ["ER", "Joint", "FineTuning"])
def test_every_choice_renders_a_whole_project(tmp_path, data, learner):
    root = bake(tmp_path, starting_data=data, learner=learner)
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert files == FILES
    for name in files:
        text = (root / name).read_text(encoding="utf-8").replace("${{", "")
        assert "{{" not in text and "{%" not in text, name
        assert text.endswith("\n"), name
    params = Params.load(root / "params.yaml")
    assert params.learner == learner
    assert params.example == ("digits" if data == "digits" else None)
    compile((root / "renate_config.py").read_text(), "renate_config.py", "exec")


@pytest.mark.parametrize(
    "name", ["dvc.yaml", "forget.yaml", "params.yaml", "renate_config.py", ".dvcignore"]
)
def test_the_root_is_the_template_by_default(tmp_path, name):
    assert (bake(tmp_path) / name).read_bytes() == (REPOSITORY / name).read_bytes()


@pytest.mark.parametrize("slug", ["Has Space", "../out", "1st", "a--b", "", "ü", "a/b"])
def test_a_slug_that_is_no_folder_name_is_refused_and_leaves_no_file(tmp_path, slug):
    # The hook refuses; an empty name cookiecutter itself. Of "a/b" it leaves an empty folder "a".
    with pytest.raises((FailedHookException, OutputDirExistsException)):
        bake(tmp_path / "in", project_slug=slug)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).as_posix() for path in files} <= {
        "in/cookiecutter.yaml",
        "in/replay/template.json",
    }


def test_at_most_six_questions_are_asked():
    questions = json.loads((REPOSITORY / "template" / "cookiecutter.json").read_text())
    assert len([name for name in questions if not name.startswith("_")]) <= 6


def test_how_the_library_is_installed_and_where_data_goes_can_be_chosen(tmp_path):
    root = bake(tmp_path, _renate_stages="./wheel.whl", dvc_remote="s3://bucket/x")
    assert (root / "requirements.txt").read_text().split() == ["./wheel.whl", "dvc-s3", "pytest"]
    assert "url = s3://bucket/x\n" in (root / ".dvc" / "config").read_text()


def test_the_workflow_runs_an_update_and_posts_its_report(tmp_path):
    workflow = yaml.safe_load((bake(tmp_path) / ".github/workflows/update.yml").read_text())
    steps = workflow["jobs"]["update"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "dvc repro --pull --allow-missing" in commands
    assert "dvc metrics diff --md" in commands and "gh pr comment" in commands


def test_the_scheduled_workflow_asks_before_it_updates(tmp_path):
    text = (bake(tmp_path) / ".github/workflows/should-update.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True]["schedule"]  # PyYAML reads the key `on` as true
    steps = {step.get("name"): step for step in workflow["jobs"]["should-update"]["steps"]}
    assert "renate-stages should-update" in steps["Decide"]["run"]
    for name in ("Run the update", "Propose it"):
        assert steps[name]["if"] == "steps.decide.outputs.code == '0'"
    assert list(steps).index("Compare it with the old") < list(steps).index("Decide")


def test_the_stages_and_outputs_are_ignored_by_git(tmp_path):
    root = bake(tmp_path)
    ignored = (root / ".gitignore").read_text().splitlines()
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    outs = [out for stage in pipeline["stages"].values() for out in stage["outs"]]
    for out in [out for out in outs if isinstance(out, str)]:
        assert f"/{out.split('/')[0]}" in ignored
    assert "/reports/pictures" in ignored and "/reports" not in ignored


def test_every_plot_is_of_a_file_that_a_stage_writes_to_git(tmp_path):
    pipeline = yaml.safe_load((bake(tmp_path) / "dvc.yaml").read_text())
    in_git = [
        name
        for stage in pipeline["stages"].values()
        for out in stage["outs"]
        if isinstance(out, dict)
        for name, kind in out.items()
        if kind == {"cache": False}
    ]
    plotted = {path for plot in pipeline["plots"] for each in plot.values() for path in each["y"]}
    assert {path.split("/")[0] if path.startswith("plots/") else path for path in plotted} <= {
        *in_git
    }
    ((shift, shown),) = pipeline["stages"]["prepare"]["plots"][0].items()
    assert shift == "metrics/shift.csv" and shown["cache"] is False
    assert "metrics/shift.csv" in pipeline["stages"]["export"]["deps"], (
        "the report names its picture"
    )
