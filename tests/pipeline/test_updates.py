"""What a user is promised of a project with three updates, by real `dvc repro`."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest
import yaml
from conftest import Sandbox, generate

UP_TO_DATE = "Data and pipelines are up to date."


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def locked_state(lock: str) -> str:
    outs = yaml.safe_load(lock)["stages"]["train"]["outs"]
    return next(out["md5"] for out in outs if out["path"] == "state")


def pointed_parent(project: Sandbox) -> str:
    return yaml.safe_load(project.read("parent.dvc"))["outs"][0]["md5"]


def runs(project: Sandbox) -> list[dict[str, str]]:
    """Return name, status and tags of every MLflow run, oldest first."""
    with sqlite3.connect(project.root / "mlflow.db") as store:
        found = store.execute("select run_uuid, name, status from runs order by start_time")
        rows = found.fetchall()
        tags = {
            run: dict(store.execute("select key, value from tags where run_uuid = ?", (run,)))
            for run, _, _ in rows
        }
        return [{**tags[run], "id": run, "name": n, "status": s} for run, n, s in rows]


def test_the_memory_keeps_what_fine_tuning_forgets(three_updates):
    accuracy = json.loads(three_updates.read("metrics/update.json"))["accuracy"]
    assert accuracy["overall"] >= 0.90
    assert set(accuracy["holdout"]) == {"1", "2", "3"}


def test_each_update_starts_from_the_state_before(three_updates):
    state = json.loads(three_updates.read("state/state.json"))
    assert state["update"] == 3
    assert state["parent"] == digest(three_updates.root / "parent" / "state.json")
    assert pointed_parent(three_updates) == locked_state(
        three_updates.run("git", "show", "update-2:dvc.lock")
    )
    assert "2 tagged update(s)" in three_updates.run("renate-stages", "verify")


def test_a_second_repro_does_nothing_and_a_forced_one_gives_equal_hashes(project):
    assert UP_TO_DATE in project.run("dvc", "repro")
    before = project.read("dvc.lock")
    project.run("dvc", "repro", "-f", "-q")
    assert project.read("dvc.lock") == before
    names = [run["name"] for run in runs(project)]
    assert names == ["update 1", "update 2", "update 3", "update 3"]
    assert [run["renate.attempt"] for run in runs(project)][-2:] == ["1", "2"]


def test_a_pulled_clone_has_nothing_to_do(project):
    clone = project.clone()
    clone.run("dvc", "pull", "-q")
    assert UP_TO_DATE in clone.run("dvc", "repro")


def test_a_clone_that_was_not_pulled_runs_with_what_it_declares_alone(project):
    clone = project.clone()
    clone.edit("params.yaml", "max_epochs: 20", "max_epochs: 2")
    printed = clone.run("dvc", "repro", "--pull", "--allow-missing")
    assert "update 3: 24 steps" in printed
    assert not (clone.root / "data" / "incoming").exists(), "prepare had nothing to do"


def test_a_what_if_starts_from_the_same_parent_and_is_tracked(project):
    parent = digest(project.root / "parent" / "state.json")
    change = ("-S", "hyperparameters.learning_rate=0.02", "-S", "trainer.max_epochs=1")
    project.run("dvc", "exp", "run", "-q", "-n", "slower", *change)
    assert json.loads(project.read("state/state.json"))["parent"] == parent
    project.run("git", "checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-q")
    change = ("-S", "hyperparameters.learning_rate=0.03", "-S", "trainer.max_epochs=1")
    project.run("dvc", "exp", "run", "-q", "--temp", "-n", "elsewhere", *change)
    shown = project.run("dvc", "exp", "show", "--csv")
    assert "slower" in shown and "elsewhere" in shown
    by_experiment = {run.get("dvc.exp.name"): run for run in runs(project)}
    commit = project.run("git", "rev-parse", "HEAD").strip()
    for name in ("slower", "elsewhere"):
        run = by_experiment[name]
        assert (run["status"], run["update.number"]) == ("FINISHED", "3")
        assert run["update.parent.state"] == parent
    assert by_experiment["slower"]["git.commit"] == commit


def test_an_earlier_model_comes_back_by_checkout(project):
    project.run("git", "checkout", "-q", "update-1")
    first = locked_state(project.read("dvc.lock"))
    project.run("dvc", "checkout", "-q")
    state = json.loads(project.read("state/state.json"))
    assert state["update"] == 1
    model = project.root / "state" / "model.safetensors"
    assert digest(model) == state["files"]["model.safetensors"]["sha256"]
    assert first == locked_state(project.run("git", "show", "update-1:dvc.lock"))


@pytest.mark.parametrize("name", ["parent.dvc", "dvc.lock"])
def test_verify_finds_an_altered_hash(project, name):
    md5 = pointed_parent(project)
    project.edit(name, md5, "0" * 32 + ".dir")
    assert "broken" in project.run("renate-stages", "verify", code=1)


def test_next_refuses_what_is_not_finished_or_not_committed(project):
    project.edit("params.yaml", "max_epochs: 20", "max_epochs: 2")
    before = project.run("git", "status", "--porcelain")
    refused = project.run("renate-stages", "next", code=2)
    assert "not up to date" in refused and "not committed: params.yaml" in refused
    assert "Traceback" not in refused
    assert project.run("git", "status", "--porcelain") == before
    assert "update-3" not in project.run("git", "tag")


def test_a_fork_starts_from_an_earlier_update_on_its_own_branch(project):
    project.run("renate-stages", "next")
    project.run("renate-stages", "next", "--from", "update-1")
    assert project.run("git", "branch", "--show-current").strip() == "update-4-from-1"
    project.edit("params.yaml", "max_epochs: 20", "max_epochs: 1")
    project.run("renate-stages", "example-data", "2")
    project.run("dvc", "add", "-q", "data/incoming")
    project.run("dvc", "repro", "-q")
    project.commit("Update 4")
    state = json.loads(project.read("state/state.json"))
    assert (state["update"], sorted(state["task_ids"])) == (4, ["1", "4"])
    assert "3 tagged update(s)" in project.run("renate-stages", "verify")


def test_a_failed_run_lets_no_output_into_git(project):
    project.edit("params.yaml", "learning_rate: 0.05", "learning_rate: 1.0e+30")
    printed = project.run("dvc", "repro", code=None)
    assert "not finite" in printed and "Traceback" not in printed
    project.run("git", "add", "-A")
    staged = project.run("git", "diff", "--cached", "--name-only").split()
    tracked = project.run("git", "ls-files").split()
    for output in ("state/", "work/", "export/", "parent/", "data/incoming/"):
        assert not any(name.startswith(output) for name in [*staged, *tracked])
    assert [run["status"] for run in runs(project)][-1] == "FAILED"


def test_the_run_of_an_update_holds_curves_pictures_and_report(three_updates):
    last = runs(three_updates)[-1]
    assert (last["status"], last["update.number"], last["learner"]) == ("FINISHED", "3", "ER")
    with sqlite3.connect(three_updates.root / "mlflow.db") as store:
        query = "select count(distinct step) from metrics where run_uuid = ? and key = 'train_loss'"
        assert store.execute(query, (last["id"],)).fetchone() == (20,)
    folder = next((three_updates.root / "mlartifacts").rglob(f"{last['id']}/artifacts"))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "plots/matrix_accuracy.png",
        "plots/holdouts_accuracy.png",
        "reports/update.md",
    } <= found


def test_new_example_data_leaves_the_cache_as_it_was(project):
    cache = project.root / ".dvc" / "cache"
    before = {path: digest(path) for path in cache.rglob("*") if path.is_file()}
    project.run("renate-stages", "example-data", "1")
    assert {path: digest(path) for path in before} == before


def test_init_twice_changes_nothing(project):
    head = project.run("git", "rev-parse", "HEAD")
    assert "nothing to do" in project.run("renate-stages", "init")
    assert project.run("git", "rev-parse", "HEAD") == head
    assert not project.run("git", "status", "--porcelain")


def test_a_project_starts_from_a_model_that_a_team_has(three_updates, tmp_path):
    new = generate(tmp_path)
    old_data = tmp_path / "old"
    from renate_stages.data import write_digits

    write_digits(old_data, 1)
    model = str(three_updates.root / "parent" / "model.safetensors")
    printed = new.run("renate-stages", "init", "--model", model, "--memory", str(old_data))
    assert "the model of model.safetensors" in printed
    state = json.loads(new.read("parent/state.json"))
    assert (state["kind"], state["classes"]) == ("init", [0, 1, 2, 3])
    assert "already" in new.run("renate-stages", "init", "--model", model, code=2)
    new.run("renate-stages", "example-data", "2")
    new.run("dvc", "add", "-q", "data/incoming")
    new.run("dvc", "repro", "-q")
    accuracy = json.loads(new.read("metrics/update.json"))["accuracy"]["holdout"]
    assert accuracy["0"] >= 0.9 and accuracy["1"] >= 0.9


def test_a_folder_inside_a_foreign_repository_is_refused(tmp_path):
    inner = generate(tmp_path / "outer")
    outer = Sandbox(tmp_path / "outer")
    outer.run("git", "init", "-q")
    assert "a repository of its own" in inner.run("renate-stages", "init", code=2)
    assert not (inner.root / ".git").exists()
