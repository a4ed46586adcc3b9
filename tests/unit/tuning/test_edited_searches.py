"""Searches during which files or parameters are edited: all trials must use the same files."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from small_project import edit_config, edit_params, snapshot
from small_searches import SEARCH, SPACES, quiet, searched

from renate_stages import errors, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.stages import train, tune
from renate_stages.state.inputs import Inputs
from renate_stages.tuning.search_files import PARAMETERS, SearchFiles, digest_of
from renate_stages.tuning.trials import Trials
from renate_stages.user.config import UserConfig

pytestmark = pytest.mark.usefixtures("warm_searches")
READ = 'float((Path(__file__).parent / "scale.txt").read_text())'


@pytest.fixture
def project(project_before_tune):
    made = project_before_tune
    (made.root / "scale.txt").write_text("16")
    edit_config(made, "    return images.float() / 16", f"    return images.float() / {READ}")

    def change(content):
        for stage in ("tune", "train", "export"):
            content["stages"][stage]["deps"].append("scale.txt")

    yaml_file.edit(made.pipeline, change)
    return made


def call_at_trial(monkeypatch, number: int, do) -> None:
    """Call `do` when trial `number` is started."""
    start, started = Trials._start, []

    def counted(self, record):
        started.append(record.number)
        if len(started) == number + 1:
            do()
        start(self, record)

    monkeypatch.setattr(Trials, "_start", counted)


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupt_at_trial(project, monkeypatch, number: int) -> None:
    edit_params(project, **SPACES, tuning=SEARCH)
    with monkeypatch.context() as patched:
        call_at_trial(patched, number, interrupt)
        with pytest.raises(KeyboardInterrupt):
            tune.run(project, quiet)


def test_killed_search_restarts_after_a_file_change(project, monkeypatch):
    interrupt_at_trial(project, monkeypatch, 2)
    (project.root / "scale.txt").write_text("8")
    messages: list[str] = []
    tune.run(project, messages.append)
    assert messages[0] == "the search starts again: scale.txt changed since its trials"
    assert not any("continuing the search" in line for line in messages)
    found = snapshot(project)
    tune.run(project, quiet)
    assert snapshot(project) == found


def test_killed_search_continues_after_a_file_change_is_reverted(project, monkeypatch):
    interrupt_at_trial(project, monkeypatch, 2)
    (project.root / "scale.txt").write_text("8")
    (project.root / "scale.txt").write_text("16")
    messages: list[str] = []
    tune.run(project, messages.append)
    assert messages[0] == "continuing the search: 2 trials found"


def test_search_aborts_when_a_file_is_edited_and_continues_when_it_is_restored(
    project, monkeypatch
):
    with monkeypatch.context() as patched:
        call_at_trial(patched, 1, lambda: (project.root / "scale.txt").write_text("8"))
        with pytest.raises(errors.ChangedInputsError, match=r"^scale\.txt changed while tune ran"):
            searched(project)
    assert not project.tuned.exists()
    (project.root / "scale.txt").write_text("16")
    messages: list[str] = []
    tune.run(project, messages.append)
    assert messages[0] == "continuing the search: 1 trials found"
    first = snapshot(project)
    shutil.rmtree(project.tuning)
    tune.run(project, quiet)
    assert snapshot(project) == first


def test_search_aborts_when_its_parameters_are_edited(project, monkeypatch):
    call_at_trial(monkeypatch, 2, lambda: edit_params(project, trainer__gradient_clip_val=1.0))
    with pytest.raises(errors.ChangedInputsError, match=r"params\.yaml:trainer changed while tune"):
        searched(project)


def test_trial_with_other_parameters_aborts_the_search(project, tmp_path):
    """With `tuning.processes: fresh`, each trial reads params.yaml again."""
    params = Params.load(project.params)
    user, inputs = UserConfig.of(project, "tune"), Inputs({}, {"renate_config.py": "0"})
    inputs = replace(inputs, files=user.files.imported())
    kept = SearchFiles.open(tmp_path / "search", inputs, user.files, digest_of(params), quiet)
    kept.add({PARAMETERS: digest_of(params)})
    edit_params(project, trainer__gradient_clip_val=1.0)
    with pytest.raises(errors.ChangedInputsError, match=r"the parameters in params\.yaml changed"):
        kept.add({PARAMETERS: digest_of(Params.load(project.params))})


def test_train_does_not_reuse_the_best_trial_after_a_file_change(project):
    searched(project)
    (project.root / "scale.txt").write_text("8")
    messages: list[str] = []
    train.run(project, messages.append)
    assert messages[0].startswith("update 1")


def test_file_missing_in_the_train_dependencies_aborts_the_search_at_its_first_trial(project):
    def change(content):
        content["stages"]["train"]["deps"].remove("scale.txt")

    yaml_file.edit(project.pipeline, change)
    with pytest.raises(
        errors.TrialMistakeError, match=r"scale\.txt[\s\S]*\n  train:\n      - scale"
    ):
        searched(project)


def test_search_by_run_training_job_restarts_after_a_file_change(
    tmp_path, project, monkeypatch, capsys
):
    write_digits(tmp_path / "week-1", 1)
    arguments = {
        "max_epochs": 1,
        "config_file": project.user_config,
        "data_path": tmp_path / "week-1",
        "working_directory": tmp_path / "work",
        "scheduler": "random",
        "max_num_trials_started": 2,
    }
    space = {"learning_rate": {"loguniform": [0.01, 1.0]}, "memory_size": 10, "hidden_size": 4}
    project.pipeline.unlink()
    with monkeypatch.context() as patched:
        call_at_trial(patched, 1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_training_job(space, **arguments)
    (project.root / "scale.txt").write_text("8")
    capsys.readouterr()
    run_training_job(space, **arguments)
    printed = capsys.readouterr().out
    assert "the search starts again: scale.txt changed since its trials" in printed
    assert "continuing the search" not in printed
