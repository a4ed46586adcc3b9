"""`run_training_job` with a search space in its configuration."""

from __future__ import annotations

import csv
import re
import shutil

import pytest
from small_project import REPOSITORY
from syne_tune.config_space import choice, loguniform

from renate_stages import errors, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.project import Project
from renate_stages.training import measured_update

pytestmark = pytest.mark.usefixtures("warm_searches")
SPACE = {
    "learning_rate": loguniform(0.01, 1.0),
    "momentum": {"choice": [0.0, 0.9]},
    "batch_size": 32,
    "memory_size": 100,
}


@pytest.fixture
def arguments(tmp_path):
    for number in (1, 2):
        write_digits(tmp_path / f"week-{number}", number)
    return {
        "max_epochs": 2,
        "config_file": REPOSITORY / "renate_config.py",
        "data_path": tmp_path / "week-1",
        "output_state_url": tmp_path / "states" / "1",
        "working_directory": tmp_path / "work",
        "scheduler": "random",
        "max_num_trials_started": 2,
    }


def trained_files(folder):
    """Return the bytes of all files that training writes to a state."""
    own = ("state.json", "tuning_history.csv")
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name not in own}


def test_job_runs_a_search_and_the_next_job_uses_its_history(tmp_path, arguments, capsys):
    first = run_training_job(SPACE, **arguments)
    assert first.search["trials"] == {"completed": 2} and first.search["epochs"] == 4
    chosen = first.hyperparameters
    assert first.tables == {}, "plot data of the search is not a learner's table"
    assert 0.01 <= chosen["learning_rate"] <= 1 and chosen["momentum"] in (0.0, 0.9)
    assert not any((tmp_path / "work").iterdir()), "temporary files of the search are deleted"

    plain = {**arguments, "output_state_url": tmp_path / "plain"}
    again = run_training_job(chosen, **plain)
    assert again.search == {} and again.hyperparameters == chosen
    assert trained_files(tmp_path / "plain") == trained_files(tmp_path / "states" / "1")

    capsys.readouterr()
    later = {"data_path": tmp_path / "week-2", "input_state_url": tmp_path / "states" / "1"}
    second = run_training_job(
        SPACE, **{**arguments, **later, "output_state_url": tmp_path / "states" / "2"}
    )
    assert "history: 4 of 4 rows, 2 of 2 trials and 1 of 1 updates" in capsys.readouterr().out
    assert second.search["history"]
    with (tmp_path / "states" / "2" / "tuning_history.csv").open() as stream:
        assert [row["update"] for row in csv.DictReader(stream)] == ["1"] * 4 + ["2"] * 4


def test_interrupted_job_continues_with_its_finished_trials(
    tmp_path, arguments, monkeypatch, capsys
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(measured_update.MeasuredUpdate, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_training_job(SPACE, **arguments)
    assert not (tmp_path / "states" / "1").exists()
    done = run_training_job(SPACE, **arguments)
    assert "continuing the search: 2 trials found" in capsys.readouterr().out
    assert done.state is not None and done.search["epochs"] == 4


def test_concurrent_search_in_the_same_working_directory_is_refused(tmp_path, arguments):
    folder = tmp_path / "work" / "search"
    folder.mkdir(parents=True)
    with Project(folder).lock("search"), pytest.raises(errors.BusyError):
        run_training_job(SPACE, **arguments)


def test_search_folder_with_files_of_the_user_is_refused_and_kept(tmp_path, arguments):
    (tmp_path / "work" / "search").mkdir(parents=True)
    (tmp_path / "work" / "search" / "notes.txt").touch()
    with pytest.raises(
        errors.ForeignFolderError, match="search contains files that this job did not write"
    ):
        run_training_job(SPACE, **arguments)
    assert (tmp_path / "work" / "search" / "notes.txt").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": "ash"}, "did you mean 'asha'"),
        ({"tuning": {"n_wokers": 2}}, "did you mean 'n_workers'"),
        ({"max_num_trials_started": 0}, "greater than or equal to 1"),
        ({"updater": choice(["ER", "ERR"])}, "unknown learner 'ERR'"),
    ],
)
def test_invalid_argument_is_refused_before_any_file_is_written(
    tmp_path, arguments, changes, message
):
    with pytest.raises(errors.InvalidParamsError, match=message):
        run_training_job(SPACE, **{**arguments, **changes})
    assert not (tmp_path / "work").exists() and not (tmp_path / "states").exists()


def test_batch_size_space_with_batch_memory_frac_is_refused(arguments):
    space = {**SPACE, "batch_size": choice([16, 32]), "batch_memory_frac": 0.5}
    with pytest.raises(errors.InvalidHyperparameterError, match="memory_batch_size"):
        run_training_job(space, **arguments)


def test_example_in_the_tuning_guide_runs_a_search(tmp_path, monkeypatch):
    guide = (REPOSITORY / "docs" / "tuning.md").read_text(encoding="utf-8")
    (call,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "renate_config.py", tmp_path)
    data = tmp_path / "renate_working_dir" / "data"
    write_digits(data, 1)
    run_training_job({}, max_epochs=1, output_state_url="states/1")
    shutil.rmtree(data)
    write_digits(data, 2)
    smaller = call.replace("started=20", "started=3").replace(
        '"states/2",', '"states/2", max_epochs=3,'
    )
    found: dict = {"run_training_job": run_training_job}
    exec(smaller, found)  # noqa: S102
    assert sum(found["result"].search["trials"].values()) == 3
    assert (tmp_path / "states" / "2" / "state.json").is_file()


def test_auto_learner_tries_suited_ones_and_names_the_best_of_each(tmp_path, arguments):
    constants = {"batch_size": 32, "memory_size": 0}
    run_training_job(constants, **{**arguments, "updater": "FineTuning", "scheduler": None})
    later = {
        "data_path": tmp_path / "week-2",
        "input_state_url": tmp_path / "states" / "1",
        "output_state_url": tmp_path / "states" / "2",
        "max_epochs": 1,
        "max_num_trials_started": 4,
        "scheduler": "grid",
    }
    space = {"learning_rate": {"choice": [0.02, 0.05]}, **constants}
    job = run_training_job(space, **{**arguments, **later, "updater": "auto"})
    tried = job.search["learners"]
    assert set(tried) <= {"FineTuning", "LwF", "WiSE-FT", "L2-SP"} and len(tried) > 1
    assert job.search["auto_learner"]["learners"] == ["L2-SP", "LwF", "WiSE-FT", "FineTuning"]
    best = job.search["best"]
    assert best["value"] == max(tried.values()) == tried[best["configuration"]["learner"]]
    assert job.hyperparameters["learner"] == best["configuration"]["learner"]
