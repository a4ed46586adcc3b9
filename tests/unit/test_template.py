"""The template renders a complete project for all choices; the root folder equals its default."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException, OutputDirExistsException
from cookiecutter.main import cookiecutter

from renate_stages.params import Params
from renate_stages.simulation.settings import read_plan

REPOSITORY = Path(__file__).parents[2]
FILES = {
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitattributes",
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
    "simulate.yaml",
    "tests/test_config.py",
}


def bake(folder: Path, **answers: str) -> Path:
    """Generate a project in a folder, which also gets the answers that cookiecutter stores."""
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
def test_every_choice_renders_a_complete_project(tmp_path, data, learner):
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
    plan = read_plan(root / "simulate.yaml")
    assert plan.updates == 5 and len(plan.runs) == 15
    compile((root / "renate_config.py").read_text(), "renate_config.py", "exec")


@pytest.mark.parametrize(
    "name",
    ["dvc.yaml", "forget.yaml", "params.yaml", "renate_config.py", "simulate.yaml", ".dvcignore"],
)
def test_root_folder_equals_the_default_template(tmp_path, name):
    assert (bake(tmp_path) / name).read_bytes() == (REPOSITORY / name).read_bytes()


@pytest.mark.parametrize("slug", ["Has Space", "../out", "1st", "a--b", "", "ü", "a/b"])
def test_invalid_project_slug_is_refused_and_leaves_no_file(tmp_path, slug):
    # The hook refuses a slug, cookiecutter an empty one. For "a/b" an empty folder "a" remains.
    with pytest.raises((FailedHookException, OutputDirExistsException)):
        bake(tmp_path / "in", project_slug=slug)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).as_posix() for path in files} <= {
        "in/cookiecutter.yaml",
        "in/replay/template.json",
    }


def test_template_asks_at_most_six_questions():
    questions = json.loads((REPOSITORY / "template" / "cookiecutter.json").read_text())
    assert len([name for name in questions if not name.startswith("_")]) <= 6


@pytest.mark.parametrize(
    ("library", "line"),
    [
        ("renate-stages", "renate-stages[s3]"),
        ("renate-stages==0.2", "renate-stages[s3]==0.2"),
        ("-e /src/renate", "-e /src/renate[s3]"),
        ("./wheel.whl", "./wheel.whl[s3]"),
        ("git+https://host/library", "renate-stages[s3] @ git+https://host/library"),
    ],
)
def test_project_with_an_s3_remote_requires_the_s3_extra(tmp_path, library, line):
    root = bake(tmp_path, _renate_stages=library, dvc_remote="s3://bucket/x")
    assert (root / "requirements.txt").read_text() == f"{line}\npytest\n"
    assert (root / ".dvc" / "config").read_text().endswith("    url = s3://bucket/x\n")
    assert "aws s3 mb s3://bucket\n" in (root / "README.md").read_text()


def test_project_with_a_local_remote_does_not_mention_s3(tmp_path):
    root = bake(tmp_path, _renate_stages="./wheel.whl")
    assert (root / "requirements.txt").read_text() == "./wheel.whl\npytest\n"
    config = (root / ".dvc" / "config").read_text()
    assert config.endswith("    url = ../../model-updates-dvc-remote\n")
    assert "s3" not in config + (root / "README.md").read_text()


def test_s3_endpoint_url_is_written_to_dvc_config_and_readme(tmp_path):
    endpoint = "http://127.0.0.1:9000"
    root = bake(tmp_path, dvc_remote="s3://bucket/x", _s3_endpoint_url=endpoint)
    config = configparser.ConfigParser()
    config.read(root / ".dvc" / "config")
    assert dict(config["'remote \"storage\"'"]) == {
        "url": "s3://bucket/x",
        "verify": "true",
        "endpointurl": endpoint,
    }
    assert f"aws s3 mb s3://bucket --endpoint-url {endpoint}\n" in (root / "README.md").read_text()


@pytest.mark.parametrize(
    ("remote", "endpoint"),
    [
        ("~/storage", ""),
        ("s3://", ""),
        ("s3:///folder", ""),
        ("s3:bucket/folder", ""),
        ("S3://bucket/folder", ""),
        ("s3://Bucket/folder", ""),
        ("s3://bucket//folder", ""),
        ("s3://my bucket", ""),
        (" ", ""),
        ("s3://bucket/folder", "127.0.0.1:9000"),
        ("../folder", "http://127.0.0.1:9000"),
    ],
)
def test_invalid_dvc_remote_or_endpoint_is_refused(tmp_path, capfd, remote, endpoint):
    with pytest.raises(FailedHookException):
        bake(tmp_path / "in", dvc_remote=remote, _s3_endpoint_url=endpoint)
    assert f"is '{endpoint or remote}'; expected" in capfd.readouterr().err
    assert not (tmp_path / "in" / "model-updates").exists()


WORKFLOWS = ("update", "should-update")
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def workflow_of(folder: Path, name: str) -> dict:
    """Return a generated workflow; PyYAML reads its key `on` as true."""
    return yaml.safe_load((bake(folder) / f".github/workflows/{name}.yml").read_text())


def secret_variables(step: dict) -> set[str]:
    """Return the names of a step's variables that hold secrets or the repository token."""
    found = {name for name, value in step.get("env", {}).items() if uses_secrets(value)}
    assert not uses_secrets({key: value for key, value in step.items() if key != "env"})
    return found


def uses_secrets(part: object) -> bool:
    return re.search(r"\$\{\{[^}]*(secrets\.|github\.token)", str(part)) is not None


@pytest.mark.parametrize("name", WORKFLOWS)
def test_only_workflow_steps_that_need_a_secret_get_it(tmp_path, name):
    workflow = workflow_of(tmp_path, name)
    whole = {key: value for key, value in workflow.items() if key != "jobs"}
    assert not uses_secrets(whole)
    for job in workflow["jobs"].values():
        assert not uses_secrets({key: value for key, value in job.items() if key != "steps"})
        for step in job["steps"]:
            secrets, command = secret_variables(step), step.get("run", "")
            needs_aws = any(each in command for each in ("dvc pull", "dvc push", "dvc repro"))
            assert secrets >= AWS if needs_aws else not secrets & AWS, step
            assert ("GH_TOKEN" in secrets) == ("gh " in command), step
            assert not ({"GH_TOKEN"} & secrets and AWS & secrets), "no step has both kinds"
            if "MLFLOW_TRACKING_URI" in secrets:
                assert command == "dvc repro --pull --allow-missing"
            if "pip install" in command or "make test" in command:
                assert not step.get("env")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned_to_a_commit_with_a_version_comment(tmp_path, name):
    text = (bake(tmp_path) / f".github/workflows/{name}.yml").read_text()
    used = [line for line in text.splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_jobs_have_only_the_permissions_that_they_use(tmp_path, name):
    workflow = workflow_of(tmp_path, name)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        commands = " ".join(step.get("run", "") for step in job["steps"])
        writes = {"contents": "write", "pull-requests": "write"}
        assert job["permissions"] == (writes if "git push" in commands else {"contents": "read"})
        (checkout,) = (s["with"] for s in job["steps"] if "checkout" in s.get("uses", ""))
        assert checkout["persist-credentials"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_scripts_contain_no_expressions_that_contributors_control(tmp_path, name):
    for job in workflow_of(tmp_path, name)["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), step
            assert "${{" not in step.get("if", "")
            subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, check=True)


def test_pull_request_from_a_fork_gets_no_secrets_and_no_push(tmp_path):
    workflow = workflow_of(tmp_path, "update")
    assert "pull_request_target" not in workflow[True]
    fork, update = workflow["jobs"]["fork"], workflow["jobs"]["update"]
    source = "github.event.pull_request.head.repo.full_name"
    assert fork["if"] == f"{source} != github.repository"
    assert update["if"] == f"{source} == github.repository"
    for job in (fork, update):
        (checkout,) = (s["with"] for s in job["steps"] if "checkout" in s.get("uses", ""))
        assert checkout["repository"] == f"${{{{ {source} }}}}" and "head." in checkout["ref"]
    commands = " ".join(step.get("run", "") for step in fork["steps"])
    assert not any(secret_variables(step) for step in fork["steps"]) and "env" not in fork
    assert not any(each in commands for each in ("git push", "dvc ", "gh "))
    assert "cache" not in str(fork["steps"])


def test_update_workflow_runs_on_changes_of_every_pipeline_input(tmp_path):
    root = bake(tmp_path)
    paths = workflow_of(tmp_path / "again", "update")[True]["pull_request"]["paths"]
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    written = {
        next(iter(out)) if isinstance(out, dict) else out
        for stage in pipeline["stages"].values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, ())
    }
    read = {dep for stage in pipeline["stages"].values() for dep in stage["deps"]}
    sources = {dep for dep in read if not any(f"{dep}/".startswith(f"{out}/") for out in written)}
    pointers = {"parent-state": "parent.dvc", "champion": "champion.dvc"}
    for source in sources:
        name = pointers.get(source.split("/")[0], source)
        name = "data/incoming.dvc" if name == "data/incoming" else name
        assert name in paths or name.endswith(".py"), f"a change of {source} triggers no run"
    assert {"**.py", "champion.dvc", "dvc.lock", "params.yaml"} <= set(paths)


def test_update_workflow_runs_the_update_and_posts_its_report(tmp_path):
    workflow = yaml.safe_load((bake(tmp_path) / ".github/workflows/update.yml").read_text())
    steps = workflow["jobs"]["update"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "dvc repro --pull --allow-missing" in commands
    assert "dvc metrics diff --md" in commands and "gh pr comment" in commands


def test_scheduled_workflow_runs_should_update_before_an_update(tmp_path):
    text = (bake(tmp_path) / ".github/workflows/should-update.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True]["schedule"]  # PyYAML reads the key `on` as true
    steps = {step.get("name"): step for step in workflow["jobs"]["should-update"]["steps"]}
    assert "renate-stages should-update" in steps["Decide"]["run"]
    for name in ("Run the update", "Open a pull request"):
        assert steps[name]["if"] == "steps.decide.outputs.code == '0'"
    assert list(steps).index("Compare it with earlier data") < list(steps).index("Decide")


def test_stage_outputs_are_ignored_by_git(tmp_path):
    root = bake(tmp_path)
    ignored = (root / ".gitignore").read_text().splitlines()
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    outs = [out for stage in pipeline["stages"].values() for out in stage["outs"]]
    for out in [out for out in outs if isinstance(out, str)]:
        assert f"/{out.split('/')[0]}" in ignored
    assert "/reports/pictures" in ignored and "/reports" not in ignored


def test_every_plot_uses_a_stage_output_that_is_stored_in_git(tmp_path):
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
        "the report links the shift picture"
    )
