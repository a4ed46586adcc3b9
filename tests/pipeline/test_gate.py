"""The gate in a real project: a ruined update is refused, its repair promoted and demoted."""

from __future__ import annotations

import pytest
import yaml
from sandbox import UP_TO_DATE, Sandbox

RUINOUS = "hyperparameters.learning_rate=3.0"


def champion(project: Sandbox) -> tuple[int, int]:
    """Return the champion's update number from champion.dvc and from the model's files."""
    pointer = yaml.safe_load(project.read("champion.dvc"))
    return pointer["meta"]["update"], project.read_json("champion/export.json")["update"]


@pytest.fixture
def with_champion(project) -> Sandbox:
    """Return a project with update 2 as champion and update 3 compared with it."""
    project.stop_tracking()
    project.commit("No tracking")
    project.run("renate-stages", "promote", "update-2")
    assert "Running stage 'export'" in project.run("dvc", "repro")
    project.commit("Update 3, measured against update 2")
    return project


def test_gate_refuses_a_ruined_update_and_its_repair_is_promoted_and_demoted(with_champion):
    project = with_champion
    promoted = project.hashes("champion")
    assert champion(project) == (2, 2)

    # Ruined update: `dvc repro` succeeds, but the gate refuses the update and reports why.
    project.run("dvc", "exp", "run", "-q", "-n", "ruined", "-S", RUINOUS)
    project.commit("Update 3, ruined")
    printed = project.run("renate-stages", "gate", code=1)
    assert (
        "update 3 against the champion, update 2: refused: average_accuracy max_worsening"
        in printed
    )
    assert "FAILED by" in printed and "Traceback" not in printed
    report = project.read("reports/update.md")
    assert "## Gate" in report and "refused: average_accuracy max_worsening" in report
    assert "FAILED by" in report
    verdict = project.read_json("reports/verdict.json")
    rule = verdict["rules"]["average_accuracy"]["max_worsening"]
    assert not verdict["passed"] and rule["margin"] < 0
    allowed = rule["allowed"] / 100 * rule["opponent"]
    assert rule["percent"]
    assert rule["opponent"] - rule["value"] == pytest.approx(allowed - rule["margin"])
    assert rule["low"] < rule["value"] - rule["opponent"] < rule["high"] < 0
    before = project.snapshot
    printed = project.run("renate-stages", "promote", code=2)
    assert "the gate refused it: update 3 against the champion, update 2: refused" in printed
    assert project.snapshot == before and champion(project) == (2, 2)

    # Repair the update by a DVC experiment, which does not change the champion.
    change = ("-S", "hyperparameters.learning_rate=0.05")
    project.run("dvc", "exp", "run", "-q", "-n", "repaired", *change)
    project.run("dvc", "exp", "apply", "repaired")
    assert champion(project) == (2, 2)
    project.commit("Update 3, repaired")
    assert "update 3 against the champion, update 2: passed" in project.run("renate-stages", "gate")
    assert "passed by" in project.run("renate-stages", "gate")
    project.run("renate-stages", "promote")
    assert champion(project) == (3, 3)
    assert project.hashes("champion") == project.hashes("export")
    assert not project.run("git", "status", "--porcelain")
    printed = project.run("dvc", "metrics", "diff", "update-2", "--targets", "metrics/gate.json")
    assert "figures.average_accuracy.value" in printed and "margin" not in printed

    # Demote the champion.
    project.run("renate-stages", "demote")
    assert champion(project) == (2, 2) and project.hashes("champion") == promoted
    assert UP_TO_DATE in project.run("dvc", "status"), "the verdict is on this champion"
    assert "update 2" in project.run("renate-stages", "champion")

    # Promote the update again, automatically by `next`.
    project.edit("params.yaml", ("promotion: manual", "promotion: auto"))
    project.run("dvc", "repro", "-q")
    project.commit("Promote by itself")
    printed = project.run("renate-stages", "next")
    assert "update 3 is the champion; before: update 2" in printed and "update 4 is open" in printed
    assert champion(project) == (3, 3)
    assert "update: 3" in project.run("git", "show", "update-3:champion.dvc")
    message = "belongs to update 3, but update 4 is open and has no"
    assert message in project.run("renate-stages", "gate", code=2)


def test_temporary_dvc_experiment_and_clone_compare_with_the_champion(with_champion):
    project = with_champion
    change = ("-S", "trainer.max_epochs=1")
    project.run("dvc", "exp", "run", "-q", "--temp", "-n", "elsewhere", *change)
    project.run("dvc", "exp", "apply", "elsewhere")
    assert project.read_json("reports/verdict.json")["champion_update"] == 2
    project.run("git", "checkout", "-q", "--", ".")

    project.run("dvc", "push", "-q")
    clone = project.clone()
    clone.edit("params.yaml", ("max_worsening: 2%}", "max_worsening: 3%}"))
    clone.run("dvc", "repro", "-q", "--pull", "--allow-missing")
    verdict = clone.read_json("reports/verdict.json")
    assert (verdict["champion_update"], verdict["passed"]) == (2, True)
    clone.run("git", "checkout", "-q", "--", ".")
    for folder in ("champion", "export"):
        assert clone.run("rm", "-rf", folder) == ""
    assert "champion: fetched update 2" in clone.run("renate-stages", "init")
    assert champion(clone) == (2, 2)


def test_rerun_export_gives_an_identical_verdict(with_champion):
    before = with_champion.read("reports/verdict.json")
    with_champion.run("dvc", "repro", "-q", "-s", "-f", "export")
    assert with_champion.read("reports/verdict.json") == before
    assert not with_champion.run("git", "status", "--porcelain")


def test_report_of_the_champion_refers_to_the_commit_of_its_comparison(with_champion):
    """Run `dvc repro` after `promote`: champion/ has changed, so `export` runs again."""
    project = with_champion
    assert "The champion is the parent's model." in project.read("reports/update.md")
    project.run("renate-stages", "promote")
    assert "champion: update 3, committed, and its files are available" in project.run(
        "renate-stages", "verify"
    )
    assert "Running stage 'export'" in project.run("dvc", "repro")
    assert UP_TO_DATE in project.run("dvc", "status")
    assert "update 3, the champion: not judged" in project.run("renate-stages", "gate", code=3)
    assert "COMMIT:reports/update.md" in project.read("reports/update.md")
    (since,) = [
        line.split()[1].rstrip(",")
        for line in project.run("renate-stages", "champion").splitlines()
        if line.startswith("since:")
    ]
    compared = project.run("git", "show", f"{since}:reports/update.md")
    assert "Update 3 against the champion, update 2: passed" in compared
    project.commit("Update 3, the champion")
    assert "update 4 is open" in project.run("renate-stages", "next")


def test_init_adds_a_champion_to_a_project_created_before_the_gate(project):
    project.stop_tracking()
    project.run("git", "rm", "-q", "champion.dvc")
    project.run("rm", "-rf", "champion")
    project.edit(".gitignore", ("/champion\n", ""))
    project.edit("dvc.yaml", ("      - champion\n", ""))
    project.run("dvc", "repro", "-q", "-f", "-s", "export")
    project.commit("As before the gate")
    assert "against its parent, update 2" in project.run("renate-stages", "gate")
    assert "`renate-stages init`" in project.run("renate-stages", "promote", code=2)

    assert "champion: none yet" in project.run("renate-stages", "init")
    assert not project.run("git", "status", "--porcelain")
    assert "nothing to do" in project.run("renate-stages", "init")
    project.run("renate-stages", "promote")
    assert champion(project) == (3, 3)
    assert not project.run("git", "status", "--porcelain")
