"""Promised behaviour of a real project with three updates, run by `dvc repro`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from sandbox import UP_TO_DATE, Sandbox, digest

# -- the pipeline ----------------------------------------------------------------------------------


def test_replay_keeps_the_accuracy_over_all_holdouts(three_updates):
    accuracy = three_updates.read_json("metrics/update.json")["accuracy"]
    assert accuracy["overall"] >= 0.90
    assert set(accuracy["holdout"]) == {"1", "2", "3"}


def test_each_update_starts_from_the_state_of_its_parent(three_updates):
    state = three_updates.read_json("state/state.json")
    assert state["update"] == 3
    assert state["parent"] == digest(three_updates.root / "parent-state" / "state.json")
    assert three_updates.read_json("parent-state/state.json")["update"] == 2
    assert three_updates.pointed_parent == three_updates.state_at("update-2")
    assert "2 tagged updates" in three_updates.run("renate-stages", "verify")


def test_second_repro_runs_nothing_and_forced_repro_gives_identical_hashes(project):
    assert UP_TO_DATE in project.run("dvc", "repro")
    before = project.read("dvc.lock")
    project.run("dvc", "repro", "-f", "-q")
    assert project.read("dvc.lock") == before
    assert not project.run("git", "status", "--porcelain")
    # One run for each update and attempt, shared by its stages.
    assert [(run["name"], run["renate.attempt"]) for run in project.runs] == [
        ("update-1", "1"),
        ("update-2", "1"),
        ("update-3", "1"),
        ("update-3", "2"),
    ]
    assert {run["status"] for run in project.runs} == {"FINISHED"}


def test_repro_in_a_pulled_clone_runs_nothing(project):
    clone = project.clone()
    clone.run("dvc", "pull", "-q")
    assert UP_TO_DATE in clone.run("dvc", "repro")
    assert clone.hashes("state") == project.hashes("state")


def test_changed_stages_in_an_unpulled_clone_need_only_declared_dependencies(project):
    clone = project.clone()
    clone.stop_tracking()
    clone.edit(
        "params.yaml",
        ("test_fraction: 0.2", "test_fraction: 0.3"),  # prepare
        ("task_id: default_task", "task_id: digits"),  # restore-state
        ("learning_rate: 0.05", "learning_rate: 0.04"),  # tune
        ("max_epochs: 20", "max_epochs: 2"),  # train, and export because of the new state
    )
    printed = clone.run("dvc", "repro", "--pull", "--allow-missing")
    for stage in ("prepare", "restore-state", "tune", "train", "export"):
        assert f"Running stage '{stage}'" in printed
    assert clone.read_json("state/state.json")["task_ids"]["3"] == "digits"
    assert clone.read_json("state/state.json")["parent"] == digest(
        project.root / "parent-state" / "state.json"
    )


def test_unchanged_stages_in_an_unpulled_clone_need_no_data(project):
    clone = project.clone()
    clone.stop_tracking()
    clone.edit("params.yaml", ("max_epochs: 20", "max_epochs: 1"))
    printed = clone.run("dvc", "repro", "--pull", "--allow-missing")
    assert "Stage 'prepare' didn't change, skipping" in printed
    assert "Stage 'restore-state' didn't change, skipping" in printed
    assert "Running stage 'train'" in printed and "Running stage 'export'" in printed
    assert not (clone.root / "data" / "incoming").exists()


def test_dvc_experiment_starts_from_the_same_parent_and_is_logged_to_mlflow(project):
    parent = digest(project.root / "parent-state" / "state.json")
    commit = project.run("git", "rev-parse", "HEAD").strip()
    change = ("-S", "hyperparameters.learning_rate=0.02", "-S", "trainer.max_epochs=1")
    project.run("dvc", "exp", "run", "-q", "-n", "slower", *change)
    assert project.read_json("state/state.json")["parent"] == parent
    project.run("git", "checkout", "-q", "--", ".")
    project.run("dvc", "checkout", "-q")

    change = ("-S", "hyperparameters.learning_rate=0.03", "-S", "trainer.max_epochs=1")
    project.run("dvc", "exp", "run", "-q", "--temp", "-n", "elsewhere", *change)
    assert UP_TO_DATE in project.run("dvc", "repro"), "the workspace is as it was"
    shown = project.run("dvc", "exp", "show", "--md")
    assert "slower" in shown and "elsewhere" in shown

    # Both runs are in the project's own MLflow store, also that from the temporary folder.
    runs = {run["dvc.exp.name"]: run for run in project.runs if "dvc.exp.name" in run}
    assert set(runs) == {"slower", "elsewhere"}
    for name, run in runs.items():
        assert run["name"] == f"update-3 · {name}"
        assert (run["status"], run["update.number"], run["update.parent"]) == ("FINISHED", "3", "2")
        assert run["update.parent.state"] == parent
        assert run["dvc.parent.md5"] == project.pointed_parent
        assert "reports/update.md" in project.artifacts(run)
    assert runs["slower"]["git.commit"] == commit


def test_checkout_of_an_earlier_tag_restores_its_model(project, models):
    assert len(set(models)) == 3
    assert digest(project.root / "state" / "model.safetensors") == models[2]
    project.run("git", "checkout", "-q", "update-1")
    project.run("dvc", "checkout", "-q")
    assert digest(project.root / "state" / "model.safetensors") == models[0]
    assert digest(project.root / "export" / "model.safetensors") == models[0]
    assert project.read_json("metrics/update.json")["update"] == 1


def test_mlflow_run_of_an_update_has_parameters_curves_plots_and_report(three_updates):
    *_, run = three_updates.runs
    assert (run["status"], run["update.number"], run["learner"]) == ("FINISHED", "3", "ER")
    assert run["update.parent.state"] == three_updates.read_json("state/state.json")["parent"]
    (commit,) = three_updates.run("git", "rev-list", "-n", "1", "HEAD~1").split()
    assert (run["git.commit"], run["git.branch"]) == (commit, "main"), "the open update's commit"

    parameters = dict(
        three_updates.query("select key, value from params where run_uuid = ?", run["id"])
    )
    assert parameters["hyperparameters.learning_rate"] == "0.05"
    assert (parameters["update.number"], parameters["trainer.max_epochs"]) == ("3", "20")

    steps = "select count(distinct step) from metrics where run_uuid = ? and key = ?"
    for curve in ("train_loss", "val_loss", "val_accuracy"):
        assert three_updates.query(steps, run["id"], curve) == [(20,)], curve
    final = "select value from latest_metrics where run_uuid = ? and key = 'accuracy.overall'"
    ((overall,),) = three_updates.query(final, run["id"])
    accuracy = three_updates.read_json("metrics/update.json")["accuracy"]
    assert overall == pytest.approx(accuracy["overall"])

    assert {
        "plots/matrix_accuracy.png",
        "plots/holdouts_accuracy.png",
        "plots/learning_curve.csv",
        "plots/shift.csv",
        "plots/shift_features.png",
        "reports/update.md",
        "reports/MODEL_CARD.md",
    } <= three_updates.artifacts(run)


def test_report_shows_only_pictures_of_its_own_update(project):
    def links() -> list[Path]:
        found = re.findall(r"\]\((pictures/[^)]*)\)", project.read("reports/update.md"))
        return [project.root / "reports" / unquote(link) for link in found]

    assert len(links()) > 8 and all(path.is_file() for path in links())
    project.run("git", "checkout", "-q", "update-2")
    project.run("dvc", "checkout", "-q")
    assert len(links()) > 8 and not any(path.exists() for path in links())
    project.run("renate-stages", "publish")
    assert all(path.is_file() for path in links())
    assert not project.run("git", "status", "--porcelain")


def test_dvc_plots_overlay_the_feature_shift_of_updates(project):
    assert project.read("metrics/shift.csv").count("\n") == 51
    for command in (("show",), ("diff", "update-2")):
        project.run("dvc", "plots", *command, "-o", "shown")
        page = (project.root / "shown" / "index.html").read_text()
        assert "shift of features compared with the parent" in page and "distance" in page
        project.run("git", "clean", "-fdxq", "shown")
    project.run("dvc", "metrics", "diff", "update-2")
    shift = project.read_json("metrics/data.json")["shift"]
    assert set(shift["features"]) == {"compared", "most_shifted", "shifted"}


def test_tests_of_the_generated_project_pass(project):
    printed = project.run("python", "-m", "pytest", "-q", "tests")
    assert "3 passed" in printed
    assert not project.run("git", "status", "--porcelain")


# -- next, status, verify, init --------------------------------------------------------------------


def next_step(project: Sandbox) -> str:
    """Return the next step that `status` reports."""
    lines = project.run("renate-stages", "status").splitlines()
    return next(line for line in lines if line.startswith("next:"))


@pytest.mark.parametrize("name", ["parent.dvc", "dvc.lock"])
def test_verify_detects_an_altered_hash(project, name):
    project.edit(name, (project.pointed_parent, "0" * 32 + ".dir"))
    printed = project.run("renate-stages", "verify", code=1)
    assert "broken: the working tree" in printed and "Traceback" not in printed


def edit_a_parameter(project: Sandbox) -> None:
    project.edit("params.yaml", ("max_epochs: 20", "max_epochs: 2"))


def commit_a_changed_parameter(project: Sandbox) -> None:
    edit_a_parameter(project)
    project.commit("Fewer epochs")


def add_a_file(project: Sandbox) -> None:
    (project.root / "notes.txt").touch()


def remove_the_results(project: Sandbox) -> None:
    project.run("git", "rm", "-q", "dvc.lock")
    project.commit("No results")


def tag_the_open_update(project: Sandbox) -> None:
    project.run("git", "tag", "update-3")


def change_the_data(project: Sandbox) -> None:
    project.run("renate-stages", "example-data", "1")


@pytest.mark.parametrize(
    ("prepare", "reasons"),
    [
        (
            edit_a_parameter,
            ["not up to date (export, train, tune)", "uncommitted changes: params.yaml"],
        ),
        (commit_a_changed_parameter, ["not up to date (export, train, tune)"]),
        (add_a_file, ["uncommitted changes: notes.txt"]),
        (remove_the_results, ["the pipeline has not run"]),
        (tag_the_open_update, ["the tag update-3 exists"]),
        (change_the_data, ["not up to date (data/incoming.dvc, prepare)"]),
    ],
)
def test_refused_next_lists_all_reasons_and_changes_nothing(project, prepare, reasons):
    prepare(project)
    before = project.snapshot
    printed = project.run("renate-stages", "next", code=2)
    assert printed.count("\n  - ") == len(reasons), printed
    for reason in reasons:
        assert reason in printed
    assert "Traceback" not in printed
    assert project.snapshot == before


def delete_cache_and_remote(project: Sandbox) -> None:
    for folder in (".dvc/cache", "parent-state", "data/incoming", "../digits-dvc-remote"):
        shutil.rmtree(project.root / folder)


@pytest.mark.parametrize(
    ("prepare", "start", "message"),
    [
        (add_a_file, "update-1", "uncommitted changes: notes.txt"),
        (change_the_data, "update-1", "to keep it, run `dvc add data/incoming` and commit"),
        (delete_cache_and_remote, "update-1", "neither in DVC's cache nor in its remote"),
        (lambda _: None, "update-7", "no tag update-7 (tagged: update-1, update-2)"),
        (lambda _: None, "one", "expected update-K"),
        (lambda _: None, "update-²", "expected update-K"),
    ],
)
def test_refused_fork_changes_nothing(project, prepare, start, message):
    prepare(project)
    before = project.snapshot
    printed = project.run("renate-stages", "next", "--from", start, code=2)
    assert message in printed and "Traceback" not in printed
    assert project.snapshot == before


def test_fork_starts_from_an_earlier_update_on_its_own_branch(project):
    project.run("renate-stages", "next", "--from", "update-1")
    assert project.run("git", "branch", "--show-current").strip() == "update-4-from-1"
    assert project.pointed_parent == project.state_at("update-1")
    assert project.read_json("parent-state/state.json")["update"] == 1
    assert "data/incoming still has the data of update 1" in next_step(project)

    project.stop_tracking()
    project.edit("params.yaml", ("max_epochs: 20", "max_epochs: 1"))
    project.put_digits(2)
    project.run("dvc", "repro", "-q")
    project.commit("Update 4")
    state = project.read_json("state/state.json")
    assert (state["update"], sorted(state["task_ids"])) == (4, ["1", "4"])
    assert set(project.read_json("metrics/update.json")["accuracy"]["holdout"]) == {"1", "4"}
    project.run("renate-stages", "next")
    assert "3 tagged updates" in project.run("renate-stages", "verify")


def test_fork_does_not_reuse_the_number_of_an_open_update(project):
    project.run("renate-stages", "next")  # update 4 is open on main
    printed = project.run("renate-stages", "next", "--from", "update-1")
    assert "update 5 is open" in printed


def test_status_reports_the_next_step(project):
    assert "finished and committed; run `renate-stages next`" in next_step(project)
    project.run("renate-stages", "next")
    assert "data/incoming still has the data of update 3" in next_step(project)
    project.put_digits(1)
    assert "not up to date" in next_step(project) and "`dvc repro`" in next_step(project)
    printed = project.run("renate-stages", "status")
    assert "update:    4" in printed and "parent:    update 3" in printed
    assert "changes:   data/incoming.dvc" in printed
    assert "git commit" not in next_step(project), "half an update should not be committed"
    (project.root / "data/incoming/more.npy").write_bytes(b"")
    assert "data/incoming has changed since it was added" in next_step(project)
    project.run("git", "checkout", "-q", "--force", "update-2")
    assert "files are not those of its commit (data/incoming.dvc, " in next_step(project)
    project.run("dvc", "checkout", "--force")
    assert "closed and tagged; `git switch`" in next_step(project)
    shutil.rmtree(project.root / "parent-state")
    assert "dvc pull parent.dvc" in project.run("renate-stages", "status")


def test_second_init_changes_nothing(project):
    before = project.snapshot
    assert "nothing to do" in project.run("renate-stages", "init")
    assert project.snapshot == before


def test_init_in_a_clone_fetches_the_parent_state(project):
    clone = project.clone()
    assert "parent: fetched the state of update 2" in clone.run("renate-stages", "init")
    assert clone.hashes("parent-state") == project.hashes("parent-state")
    assert not clone.run("git", "status", "--porcelain")
