"""Commands that change the lineage either complete or change nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from small_lineage import GOOD, run_update
from small_project import edit_params

from renate_stages import errors, lineage
from renate_stages.actions import promote, resolve
from renate_stages.lineage import git_locks, transaction
from renate_stages.lineage.intent import Intent
from renate_stages.project import Project


def snapshot(project: Project) -> tuple[str, ...]:
    return (
        lineage.git(project, "rev-parse", "--abbrev-ref", "HEAD"),
        lineage.git(project, "for-each-ref"),
        lineage.git(project, "status", "--porcelain"),
        project.params.read_text(),
        project.parent_pointer.read_text(),
        (project.parent / "state.json").read_text(),
        str(project.intent.exists()),
    )


def hook(project: Project, name: str, script: str) -> None:
    path = project.root / ".git" / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def remove_git_identity(project: Project, monkeypatch) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    monkeypatch.setenv("HOME", str(project.root.parent))
    lineage.git(project, "config", "user.useConfigOnly", "true")


def break_signing(project: Project, monkeypatch) -> None:
    lineage.git(project, "config", "tag.gpgSign", "true")
    lineage.git(project, "config", "gpg.program", "false")


def enable_ssh_signing(project: Project) -> None:
    key = project.root.parent / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    signers = project.root.parent / "signers"
    signers.write_text(f"test@example.org {key.with_suffix('.pub').read_text()}")
    for name, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", str(key)),
        ("gpg.ssh.allowedSignersFile", str(signers)),
        ("tag.gpgSign", "true"),
        ("commit.gpgSign", "true"),
    ):
        lineage.git(project, "config", name, value)


# -- Git errors ------------------------------------------------------------------------------------


COMMANDS = {
    "next": lineage.open_next,
    "fork": lambda project: lineage.open_from(project, 2),
    "promote": promote.promote,
    "demote": promote.demote,
}


@pytest.fixture(params=COMMANDS)
def command(request, project):
    if request.param == "demote":
        promote.promote(project)
    return COMMANDS[request.param]


def test_command_refused_by_a_git_hook_changes_nothing(project, command):
    hook(project, "pre-commit", "echo 'the hook refuses' >&2; exit 1")
    before = snapshot(project)
    with pytest.raises(errors.CommandError, match="the hook refuses"):
        command(project)
    assert snapshot(project) == before
    hook(project, "pre-commit", "echo 'the hook agrees' >&2")
    command(project)
    assert snapshot(project) != before and lineage.verify(project)[1] == []


def test_output_of_a_git_hook_is_shown(project, capfd):
    hook(project, "pre-commit", "echo 'the hook agrees' >&2")
    lineage.open_next(project)
    assert "the hook agrees" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            remove_git_identity,
            r"Git cannot make a commit here.*To fix this: run `git config user\.name",
        ),
        (break_signing, r"failed to sign.*To fix this: make signing work"),
    ],
)
def test_missing_git_identity_or_failing_signing_is_refused_before_any_change(
    project, command, spoil, message, monkeypatch
):
    spoil(project, monkeypatch)
    before = snapshot(project)
    with pytest.raises(errors.GitNotReadyError, match=f"(?s){message}"):
        command(project)
    assert snapshot(project) == before


def test_signed_commits_and_tags_are_made_without_an_editor(project, monkeypatch):
    enable_ssh_signing(project)
    monkeypatch.setenv("GIT_EDITOR", "false")
    finished = lineage.git(project, "rev-parse", "HEAD")
    assert lineage.open_next(project) == 4
    lineage.git(project, "verify-commit", "HEAD")
    lineage.git(project, "verify-tag", "update-3")
    assert lineage.git(project, "rev-parse", "update-3^{commit}") == finished
    run_update(project, GOOD)
    assert lineage.verify(project) == (3, []), "a signed tag counts as an update tag"
    assert promote.promote(project, 3) is not None


# -- missing files, full disks and stale locks -----------------------------------------------------


def test_command_changes_nothing_when_files_are_in_neither_cache_nor_remote(project, command):
    shutil.rmtree(project.root / ".dvc" / "cache")
    before = snapshot(project)
    with pytest.raises(errors.RenateStagesError):
        command(project)
    assert snapshot(project) == before


def test_interrupted_checkout_of_next_is_completed_by_recovery(project, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "fetch", full)
        with pytest.raises(errors.HalfDoneError, match="`renate-stages resolve`"):
            lineage.open_next(project)
    interrupted = pytest.raises(errors.InterruptedCommandError, match="`renate-stages next` was")
    with interrupted, project.lock("train"):
        pass
    done = lineage.recover(project)
    assert done is not None and done.completed
    assert lineage.verify(project) == (3, [])
    assert (project.parent / "state.json").read_text() == f"3 {GOOD}"
    assert lineage.recover(project) is None
    with project.lock("train"):
        pass


def test_rollback_leaves_uncommitted_work_unchanged(project):
    (project.root / "notes.txt").write_text("staged")
    lineage.git(project, "add", "notes.txt")
    (project.root / "make.py").write_text("changed")
    hook(project, "pre-commit", "exit 1")
    before = snapshot(project)
    with pytest.raises(errors.CommandError):
        promote.promote(project, 2)
    assert snapshot(project) == before
    assert lineage.git(project, "diff", "--cached", "--name-only") == "notes.txt"


def test_malformed_intent_file_is_reported(project):
    project.scratch.mkdir(exist_ok=True)
    intent = Intent(command="renate-stages next", head="0" * 40, place="main")
    for changes in ({"files": ["../x"]}, {"pointers": ["x.dvc"]}, {"place": "--x"}, {"tag": "-d"}):
        project.intent.write_text(json.dumps(intent.model_dump() | changes))
        with pytest.raises(errors.MalformedFileError):
            lineage.recover(project)
    for content in ("", "[]", '{"command": "x"}', '{"command": "x", "head": 1, "place": ""}'):
        project.intent.write_text(content)
        with pytest.raises(
            errors.MalformedFileError, match=r"intent\.json cannot be read as the record"
        ):
            lineage.recover(project)


def test_git_lock_of_a_killed_command_is_removed_but_an_older_lock_is_kept(project):
    Intent(command="renate-stages next", head="0" * 40, place="main").write(project)
    began = project.intent.stat().st_mtime
    git = project.root / ".git"
    for lock in (git / "index.lock", git / "refs" / "heads" / "main.lock"):
        lock.touch()
    lineage.clear_git_locks(project, since=began)
    assert not list(git.rglob("*.lock"))
    (git / "index.lock").touch()
    os.utime(git / "index.lock", (began - 100, began - 100))
    lineage.clear_git_locks(project, since=began)
    assert (git / "index.lock").exists(), "the lock belongs to another process"


def test_init_is_completed_after_git_init_was_killed(tmp_path):
    project = Project(tmp_path / "new")
    (project.root / ".git" / "refs").mkdir(parents=True)  # without HEAD
    project.params.write_text("update: {number: 1, parent: 0}\ntracking: {enabled: false}\n")
    project.scratch.mkdir()
    project.intent.write_text('{"command": "renate-stages init", "arguments": {}}')
    (project.root / ".git" / "config.lock").touch()
    assert resolve.recover(project).completed
    assert (
        lineage.git(project, "log", "--format=%s") == "Make the project ready for its first update"
    )
    assert not project.intent.exists() and project.parent.is_dir()


def test_git_lock_is_kept_while_a_git_process_is_running(project, monkeypatch):
    monkeypatch.setattr(git_locks, "PATIENCE", 0.3)
    (project.root / ".git" / "index.lock").touch()
    command = ["git", "cat-file", "--batch"]
    with subprocess.Popen(command, cwd=project.root, stdin=subprocess.PIPE) as at_work:
        with pytest.raises(errors.GitBusyError, match=r"index\.lock"):
            lineage.clear_git_locks(project, since=0)
        at_work.communicate()
    lineage.clear_git_locks(project, since=0)
    assert not (project.root / ".git" / "index.lock").exists()


def test_empty_rwlock_file_of_a_killed_dvc_is_tolerated(project):
    """DVC truncates the file before writing it, and refuses to work with an empty file."""
    (project.root / ".dvc" / "tmp" / "rwlock").write_text("")
    assert lineage.open_next(project) == 4


def test_fork_is_refused_when_its_branch_name_exists(project):
    lineage.git(project, "branch", "update-4-from-1")
    before = snapshot(project)
    with pytest.raises(errors.NextRefusedError, match="the branch update-4-from-1 exists"):
        lineage.open_from(project, 1)
    assert snapshot(project) == before


# -- update numbers --------------------------------------------------------------------------------


def test_update_with_untracked_data_cannot_be_closed(project):
    lineage.git(project, "rm", "-q", "data/incoming.dvc")
    lineage.git(project, "commit", "-qm", "Without the data's pointer")
    advice = "DVC does not track data/incoming yet; run `dvc add data/incoming`"
    assert lineage.status(project)["next"] == advice
    with pytest.raises(errors.NextRefusedError, match="does not track data/incoming"):
        lineage.open_next(project)
    lineage.git(project, "tag", "update-3")  # as earlier releases did
    assert lineage.open_from(project, 3) == 4
    assert lineage.status(project)["next"]


def test_status_tells_data_of_the_parent_from_new_data_that_is_not_added(project):
    lineage.open_next(project)
    assert "still has the data of update 3" in lineage.status(project)["next"]
    (project.incoming / "new.csv").write_text("5,6\n")
    advice = "has changed since it was added; run `dvc add data/incoming` and `dvc repro`"
    assert advice in lineage.status(project)["next"]


def test_two_updates_never_get_the_same_number(project, capsys):
    assert lineage.open_from(project, 1) == 4
    lineage.git(project, "checkout", "-q", "main")
    lineage.dvc(project, "checkout", "--quiet", "--force", "parent.dvc")
    assert lineage.open_next(project) == 5, "a branch uses number 4"
    printed = capsys.readouterr().out
    assert "the number 4 is in use (update-4-from-1); opening update 5 instead" in printed
    lineage.git(project, "branch", "-m", "update-4-from-1", "renamed")
    assert lineage.open_from(project, 1) == 6


def test_malformed_update_tags_are_ignored_and_reported(project, capsys):
    for tag in ("update-007", "update-²", "update-", "update-1-old", "update-99999999999999999999"):
        lineage.git(project, "tag", tag)
    assert lineage.tags(project) == [1, 2]
    assert lineage.verify(project) == (2, [])
    assert "update-007" in capsys.readouterr().out
    assert "update-007" in lineage.status(project)["tags"]
    assert lineage.open_next(project) == 4


def test_next_is_refused_when_another_clone_has_closed_the_update(project, tmp_path):
    other = Project(tmp_path / "other")
    lineage.git(project, "clone", "-q", "--bare", ".", "../origin.git")
    lineage.git(project, "remote", "add", "origin", "../origin.git")
    lineage.git(project, "fetch", "-q", "origin")
    lineage.git(project, "branch", "-u", "origin/main")
    subprocess.run(["cp", "-a", project.root, other.root], check=True)
    lineage.open_next(other)
    lineage.git(other, "push", "-q", "origin", "main")
    lineage.git(project, "fetch", "-q", "origin")
    with pytest.raises(
        errors.NextRefusedError, match="update 4 is already open on origin/main; run `git"
    ):
        lineage.open_next(project)


def test_verify_in_a_shallow_clone_suggests_fetching_the_history(project, tmp_path):
    lineage.git(
        project, "clone", "-q", "--depth", "1", f"file://{project.root}", str(tmp_path / "c")
    )
    shutil.copytree(project.parent, tmp_path / "c" / "parent-state")
    checked, problems = lineage.verify(Project(tmp_path / "c"))
    assert checked == 0
    (problem,) = problems
    assert problem.endswith("is not in this shallow clone; run `git fetch --unshallow --tags`")


def test_next_keeps_comments_in_params_yaml(project):
    edit_params(project, seed=GOOD)
    text = project.params.read_text()
    project.params.write_text(text.replace("number: 3", "number: 3  # which one"))
    lineage.git(project, "commit", "-qam", "A comment")
    lineage.open_next(project)
    assert "number: 4  # which one" in project.params.read_text()
