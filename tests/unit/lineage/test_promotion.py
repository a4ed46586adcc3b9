"""Promotion and demotion of champions, in a small repository whose stages are a script."""

from __future__ import annotations

import json
import shutil

import pytest
from small_lineage import BAD, GOOD, run_update
from small_project import edit_params

from renate_stages import errors, lineage
from renate_stages.actions import promote, publish
from renate_stages.cli.champion import gate
from renate_stages.export.exported import Exported
from renate_stages.lineage import ChampionPointer
from renate_stages.project import Project


def snapshot(project: Project) -> tuple[str, ...]:
    return (
        lineage.git(project, "rev-parse", "HEAD"),
        lineage.git(project, "status", "--porcelain"),
        project.champion_pointer.read_text(),
        (project.champion / "export.json").read_text(),
    )


def champion(project: Project) -> tuple[int, str, int]:
    """Return update and state from the champion pointer, and the update in `champion/`."""
    pointer = ChampionPointer.read(project)
    return pointer.update, pointer.state, Exported.read(project.champion).update


def test_promotion_points_the_champion_to_the_hash_of_the_export(project):
    moved = promote.promote(project)
    assert moved is not None and (moved.now.label, moved.before.label) == ("update 3", "none")
    assert champion(project) == (3, "identity-3-9", 3)
    out = lineage.export_entry(project.lock_file.read_text())
    assert out == ChampionPointer.read(project).out
    assert lineage.git(project, "status", "--porcelain") == ""
    assert lineage.git(project, "log", "-1", "--format=%s") == "Promote update 3; before: none"


def test_repeated_demotion_restores_earlier_champions_in_order(project):
    for number in (3, 1, 2):
        promote.promote(project, number)
    seen = [promote.demote(project).now.update for _ in range(3)]
    assert seen == [1, 3, 0]
    assert champion(project) == (0, "", 0)
    before = snapshot(project)
    with pytest.raises(errors.NoEarlierChampionError, match="the champion is none"):
        promote.demote(project)
    assert snapshot(project) == before


def test_demotion_restores_the_previous_pointer(project):
    promote.promote(project)
    text = project.champion_pointer.read_text()
    promote.promote(project, 2)
    promote.demote(project)
    assert project.champion_pointer.read_text() == text


def test_demotion_leaves_uncommitted_work_unchanged(project):
    promote.promote(project)
    (project.root / "notes.txt").write_text("half done")
    lineage.git(project, "add", "notes.txt")
    project.params.write_text(project.params.read_text() + "# half done\n")
    promote.demote(project)
    assert lineage.git(project, "show", "--format=", "--name-only").split() == ["champion.dvc"]
    assert lineage.git(project, "status", "--porcelain") == "A  notes.txt\n M params.yaml"


def test_demotion_works_in_a_shallow_clone(project, tmp_path):
    promote.promote(project)
    promote.promote(project, 1)
    lineage.dvc(project, "remote", "add", "-d", "-q", "beside", str(tmp_path / "remote"))
    lineage.git(project, "commit", "-q", "-a", "-m", "A remote")
    lineage.dvc(project, "push", "-q", "--all-commits")
    clone = Project(tmp_path / "clone")
    lineage.git(project, "clone", "-q", "--depth", "1", f"file://{project.root}", str(clone.root))
    assert promote.demote(clone).now.label == "update 3"
    assert champion(clone) == (3, "identity-3-9", 3)


def test_update_refused_by_the_gate_is_promoted_only_with_force(project):
    run_update(project, BAD)
    before = snapshot(project)
    with pytest.raises(errors.PromotionRefusedError) as raised:
        promote.promote(project)
    refusal = str(raised.value)
    assert "update 3: refused: average_accuracy min" in refusal
    assert "average_accuracy min: FAILED by 0.4000" in refusal and "--force" in refusal
    assert snapshot(project) == before
    promote.promote(project, force=True)
    assert champion(project) == (3, "identity-3-1", 3)
    assert "Promote update 3 (forced)" in lineage.git(project, "log", "-1", "--format=%s")


def test_promoting_the_champion_again_changes_nothing(project):
    promote.promote(project)
    before = snapshot(project)
    assert promote.promote(project) is None
    assert snapshot(project) == before


def leave_an_uncommitted_file(project: Project) -> None:
    (project.root / "notes.txt").touch()


def change_a_parameter(project: Project) -> None:
    edit_params(project, seed=8)
    lineage.git(project, "commit", "-q", "-a", "-m", "Other quality")


def open_an_update(project: Project) -> None:
    lineage.open_next(project)


def forge_the_verdict(project: Project) -> None:
    content = json.loads(project.verdict.read_text())
    project.verdict.write_text(json.dumps({**content, "update": 7}))
    lineage.git(project, "commit", "-q", "-a", "-m", "Forged")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (leave_an_uncommitted_file, "uncommitted changes: notes.txt"),
        (change_a_parameter, "the pipeline is not up to date (export, train)"),
        (open_an_update, "has not run; run `dvc repro`, or promote its parent with `renate-stages"),
        (forge_the_verdict, "the pipeline is not up to date (export)"),
    ],
)
def test_promotion_of_an_unfinished_or_uncommitted_update_is_refused(project, prepare, reason):
    prepare(project)
    before = snapshot(project)
    with pytest.raises(errors.PromotionRefusedError) as raised:
        promote.promote(project, force=True)
    assert reason in str(raised.value)
    assert snapshot(project) == before


def test_verdict_against_another_champion_is_refused(project):
    promote.promote(project, 2)  # update 3 was compared with no champion
    with pytest.raises(errors.PromotionRefusedError, match=r"compares with no model, but"):
        promote.promote(project)
    run_update(project, GOOD - 1)
    promote.promote(project)
    assert champion(project) == (3, "identity-3-8", 3)


def test_tagged_update_is_promoted_by_the_verdict_of_its_tag(project):
    promote.promote(project)
    promote.promote(project, 1)
    assert champion(project) == (1, "identity-1-9", 1)


def test_tagged_verdict_that_differs_from_its_lock_file_is_refused(project):
    lineage.git(project, "checkout", "-q", "--detach", "update-2")
    forge_the_verdict(project)
    lineage.git(project, "tag", "-f", "update-2")
    lineage.git(project, "checkout", "-q", "main")
    with pytest.raises(errors.PromotionRefusedError, match=r"does not match its dvc\.lock"):
        promote.promote(project, 2)


def test_gate_accepts_only_the_verdict_written_by_export(project, monkeypatch):
    monkeypatch.chdir(project.root)
    gate()
    content = json.loads(project.verdict.read_text())
    project.verdict.write_text(json.dumps({**content, "champion_update": 1}))
    with pytest.raises(errors.ForeignVerdictError, match="`dvc repro`, which writes both"):
        gate()


def test_promotion_of_an_update_without_a_tag_is_refused(project):
    with pytest.raises(errors.UnknownUpdateError, match=r"no tag update-7 \(tagged: update-1"):
        promote.promote(project, 7)


def test_promotion_and_demotion_change_nothing_when_files_are_missing(project):
    promote.promote(project)
    shutil.rmtree(project.root / ".dvc" / "cache")
    before = snapshot(project)
    with pytest.raises(errors.MissingObjectsError, match=r"files of champion/ that champion\.dvc"):
        promote.promote(project, 1)
    assert snapshot(project) == before
    with pytest.raises(errors.MissingObjectsError):
        promote.demote(project)
    assert snapshot(project) == before


def test_edited_or_missing_champion_pointer_is_reported(project):
    project.champion_pointer.write_text(project.champion_pointer.read_text() + "# mine\n")
    with pytest.raises(errors.ChangedPointerError, match=r"git checkout HEAD -- champion\.dvc"):
        promote.promote(project, 1)
    project.champion_pointer.unlink()
    with pytest.raises(errors.NoChampionPointerError, match="`renate-stages init`"):
        promote.champion_status(project)


def test_next_ignores_an_export_outdated_only_by_the_new_champion(project):
    promote.promote(project)
    assert "export" in json.loads(lineage.dvc(project, "status", "--json"))
    assert lineage.unfinished(project, 3) == []
    assert lineage.open_next(project) == 4
    assert lineage.status(project)["champion"] == "update 3"


@pytest.mark.parametrize("quality", [GOOD, BAD])
def test_auto_promotion_promotes_only_an_update_that_passed_the_gate(project, quality):
    edit_params(project, seed=quality, export={"promotion": "auto"})
    run_update(project, quality)
    message = promote.promote_where_asked(project)
    assert lineage.open_next(project) == 4
    pointer = lineage.at_tag(project, 3, "champion.dvc")
    if quality == GOOD:
        assert message == "update 3 is the champion; before: none" and "update: 3" in pointer
    else:
        assert message is not None and "refused: average_accuracy min" in message
        assert "update: 3" not in pointer


def test_next_does_not_promote_by_default(project):
    assert promote.promote_where_asked(project) is None
    assert ChampionPointer.read(project).update == 0


def test_fork_keeps_the_current_champion(project):
    promote.promote(project, 1)
    lineage.open_from(project, 2)
    assert champion(project)[0] == 1
    assert lineage.git(project, "status", "--porcelain") == ""


def test_champion_status_shows_commit_and_metrics(project):
    assert promote.champion_status(project) == [("champion", "none")]
    promote.promote(project, 2)
    promote.promote(project, 1)
    found = dict(promote.champion_status(project))
    commit = lineage.git(project, "rev-parse", "--short", "HEAD")
    assert found["champion"] == "update 1" and found["since"].startswith(commit)
    assert found["state"] == "identity-1-9" and found["average accuracy"] == "0.5000"
    assert found["before"] == "update 2 (`renate-stages demote` goes back to it)"
    shutil.rmtree(project.champion)
    figures = dict(promote.champion_status(project))["figures"]
    assert figures == "champion/ is missing or incomplete; run `dvc pull champion.dvc`"


def test_promotion_updates_mlflow_and_survives_an_mlflow_failure(project, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(publish, "publish", lambda project, params: calls.append("published"))
    monkeypatch.setattr(publish, "point", lambda project, params, *alias: calls.append(alias))
    edit_params(project, tracking__enabled=True)
    lineage.git(project, "commit", "-qam", "Track")
    promote.promote(project, 1)
    promote.promote(project, force=True)
    assert calls == [("champion", "identity-1-9"), "published", ("champion", "identity-3-9")]

    def unreachable(*_) -> None:
        raise errors.PublishError("a store", "no answer")

    monkeypatch.setattr(publish, "point", unreachable)
    promote.demote(project)
    assert champion(project) == (1, "identity-1-9", 1)
    assert "warning: MLflow was not updated" in capsys.readouterr().err


# -- verify ----------------------------------------------------------------------------------------


def champion_problems(project: Project) -> list[str]:
    checked, problems = lineage.verify(project)
    assert checked == 2
    return problems


def rewrite(project: Project, old: str, new: str) -> None:
    text = project.champion_pointer.read_text()
    assert old in text
    project.champion_pointer.write_text(text.replace(old, new, 1))


def test_verify_accepts_champions_from_tagged_and_untagged_commits(project):
    assert champion_problems(project) == [], "no champion yet"
    promote.promote(project, 1)
    assert champion_problems(project) == []
    promote.promote(project, force=True)
    assert champion_problems(project) == [], "champion of the open update"
    run_update(project, GOOD - 1)
    assert champion_problems(project) == [], "champion of an earlier run of the open update"
    lineage.open_next(project)
    assert lineage.verify(project) == (3, [])


def test_verify_reports_a_champion_that_no_commit_produced(project):
    promote.promote(project, 1)
    md5 = ChampionPointer.read(project).out["md5"]
    forged = f"{md5.removesuffix('.dir')[::-1]}.dir"
    rewrite(project, md5, forged)
    (problem,) = champion_problems(project)
    assert problem == (
        f"the working tree: champion.dvc says that the export {forged} is of update 1, but no "
        "dvc.lock in the history of this clone has this export; run `git checkout HEAD -- "
        "champion.dvc`, or `renate-stages promote update-K`"
    )


def test_verify_reports_a_champion_produced_only_by_an_experiment(project):
    edit_params(project, seed=GOOD - 2)
    lineage.dvc(project, "exp", "run", "--quiet", "--name", "what-if")
    made = lineage.export_entry(project.lock_file.read_text())
    assert made is not None
    lineage.git(project, "checkout", "--", ".")
    promote.promote(project, 1)
    rewrite(project, ChampionPointer.read(project).out["md5"], made["md5"])
    (problem,) = champion_problems(project)
    assert "no dvc.lock in the history of this clone has this export" in problem


def test_verify_reports_a_champion_with_a_wrong_update_number(project):
    promote.promote(project, 1)
    rewrite(project, "update: 1", "update: 2")
    (problem,) = champion_problems(project)
    assert problem.endswith("is of update 2, but it is the export of update 1")


def test_verify_checks_the_champion_of_each_tagged_update(project):
    promote.promote(project, 1)
    rewrite(project, "update: 1", "update: 2")
    lineage.git(project, "commit", "-qam", "Forged")
    lineage.git(project, "tag", "-f", "update-2")
    lineage.git(project, "reset", "--hard", "-q", "HEAD~2")
    (problem,) = [each for each in lineage.verify(project)[1] if "champion.dvc" in each]
    assert problem.startswith("update-2: champion.dvc says that the export")


def test_verify_reports_an_unreadable_champion_pointer(project):
    promote.promote(project, 1)
    project.champion_pointer.write_text("outs: []\n")
    (problem,) = champion_problems(project)
    assert problem.startswith("the working tree: champion.dvc cannot be read as a DVC file")


def test_verify_looks_for_champion_files_locally_and_in_the_remote(project, tmp_path):
    promote.promote(project, 1)
    away = project.root / ".dvc" / "cache" / "files"
    lineage.dvc(project, "remote", "add", "-d", "-q", "beside", str(tmp_path / "remote"))
    lineage.dvc(project, "push", "-q", "champion.dvc")
    shutil.rmtree(away)
    assert champion_problems(project) == [], "in champion/ and in the remote"
    shutil.rmtree(project.champion)
    assert champion_problems(project) == [], "in the remote"
    lineage.dvc(project, "remote", "remove", "beside")
    (problem,) = champion_problems(project)
    assert " of champion.dvc (champion" in problem
    assert "and the project has no DVC remote" in problem
    lineage.dvc(project, "remote", "add", "-d", "-q", "beside", str(tmp_path / "other"))
    (problem,) = champion_problems(project)
    assert "is neither in DVC's cache nor in the remote; run `dvc push`" in problem
    lineage.dvc(
        project, "remote", "modify", "-q", "beside", "url", "hdfs://a-driver-that-is-not-here"
    )
    (problem,) = champion_problems(project)
    assert "cannot check whether its files are available" in problem
