"""`run_training_job` with states and data at URLs."""

from __future__ import annotations

import shutil

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_project import REPOSITORY

from renate_stages import errors, files, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.api.run_stages import self_contained
from renate_stages.api.workplace import lay_out
from renate_stages.params import Params
from renate_stages.project import Outside, Project
from renate_stages.state import state
from renate_stages.storage import Storage, Traffic
from renate_stages.storage.states import copy_state

pytestmark = pytest.mark.usefixtures("empty_memory_storage")
VALUES = {"learning_rate": 0.05, "memory_size": 300}
STATES = "memory://bucket/states"


@pytest.fixture
def arguments(tmp_path):
    for number in (1, 2):
        write_digits(tmp_path / f"week-{number}", number)
        names = {path.name: path for path in (tmp_path / f"week-{number}").iterdir()}
        Storage.at(f"memory://bucket/week-{number}").put(names)
    return {
        "max_epochs": 1,
        "config_file": REPOSITORY / "renate_config.py",
        "working_directory": tmp_path / "work",
    }


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def both_updates(arguments, data, states):
    first = run_training_job(
        VALUES, data_path=f"{data}/week-1", output_state_url=f"{states}/1", **arguments
    )
    second = run_training_job(
        VALUES,
        data_path=f"{data}/week-2",
        input_state_url=f"{states}/1",
        output_state_url=f"{states}/2",
        **arguments,
    )
    return first, second


def test_updates_with_urls_and_with_folders_write_equal_bytes(tmp_path, arguments):
    first, second = both_updates(arguments, "memory://bucket", STATES)
    assert first.state is not None and second.state is not None
    here = both_updates(
        {**arguments, "working_directory": tmp_path / "plain"}, tmp_path, tmp_path / "states"
    )
    for number, result, plain in ((1, first, here[0]), (2, second, here[1])):
        there = Storage.at(f"{STATES}/{number}")
        expected = contents(tmp_path / "states" / str(number))
        assert {name: there.read(name) for name in there.sizes()} == expected
        assert contents(result.state.folder) == expected, "the local copy must match too"
        assert result.metrics == plain.metrics
        assert plain.sent == plain.fetched == Traffic()
    new = second.sent.bytes / sum(Storage.at(f"{STATES}/2").sizes().values())
    assert new < 0.9, "the first update's holdout and memory are not uploaded again"
    manifest = len((first.state.folder / "state.json").read_bytes())
    data = Storage.at("memory://bucket/week-2").sizes()
    assert second.fetched == Traffic(1 + len(data), manifest + sum(data.values()))
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"incoming", "states"}


def test_invalid_jobs_are_refused_before_any_data_is_downloaded(tmp_path, arguments, monkeypatch):
    both_updates(arguments, "memory://bucket", STATES)
    monkeypatch.setattr(MemoryFileSystem, "get_file", None)
    again = {**arguments, "working_directory": tmp_path / "new", "data_path": "memory://bucket/w"}
    with pytest.raises(errors.StateExistsError, match="states/1"):
        run_training_job(VALUES, output_state_url=f"{STATES}/1", **again)
    with pytest.raises(errors.PlaceTakenError, match=r"1/evaluations\.csv"):
        run_training_job(VALUES, output_state_url=STATES, **again)
    with pytest.raises(errors.MissingFileError, match="states/9/state"):
        run_training_job(VALUES, input_state_url=f"{STATES}/9", **again)
    with pytest.raises(errors.InvalidUrlError, match="'s4' is unknown"):
        run_training_job(VALUES, output_state_url="s4://bucket/1", **again)
    with pytest.raises(errors.InvalidParamsError, match="max_epochs"):
        run_training_job(VALUES, input_state_url=f"{STATES}/1", **{**again, "max_epochs": "many"})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failing", ["put_file", "pipe_file"])
def test_state_that_fails_to_upload_stays_complete_and_can_be_uploaded_later(
    arguments, tmp_path, monkeypatch, failing
):
    def refuse(*_, **__):
        raise ConnectionResetError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, failing, refuse)
        with pytest.raises(errors.StateNotSentError, match="is complete in") as found:
            run_training_job(
                VALUES,
                data_path="memory://bucket/week-1",
                output_state_url=f"{STATES}/1",
                **arguments,
            )
    (unsent,) = (tmp_path / "work" / "unsent").iterdir()
    state.check(unsent)
    assert f"`renate-stages copy-state {unsent} {STATES}/1`" in str(found.value)
    assert not Storage.at(f"{STATES}/1").has("state.json")
    copy_state(unsent, f"{STATES}/1")
    there = Storage.at(f"{STATES}/1")
    assert {name: there.read(name) for name in there.sizes()} == contents(unsent)
    result = run_training_job(
        VALUES, data_path="memory://bucket/week-2", input_state_url=f"{STATES}/1", **arguments
    )
    assert result.metrics["update"] == 2 and result.state is None
    assert unsent.is_dir(), "the local copy is never removed automatically"


def test_project_folder_of_a_killed_cloud_job_is_laid_out_again(make_state, tmp_path):
    """The killed job's pipeline and links to the user's code must not affect the next job."""
    config = tmp_path / "renate_config.py"
    config.write_text("VALUE = 1\n")
    outside = Outside(config, tmp_path / "data", (), {config.name: files.sha256(config)})
    project = Project(tmp_path / "work", outside)
    trials = project.searches / "key"
    trials.mkdir(parents=True)
    for _ in range(2):
        lay_out(project, Params.parse({}, "a test"), make_state(20).folder)
        assert not project.pipeline.exists() and Project.at(project.root) == project
        assert self_contained(project, {}).pipeline.is_file()
        assert (project.root / config.name).read_text() == config.read_text()
        files.write_text(config, "VALUE = 2\n")  # another file, not the linked one
    assert trials.is_dir(), "the search continues"


def test_parent_state_survives_removal_of_its_source_while_a_job_runs(make_state, tmp_path):
    source = make_state(20).folder
    before = contents(source)
    outside = Outside(tmp_path / "renate_config.py", tmp_path / "data", (), {})
    project = Project(tmp_path / "work", outside)
    project.root.mkdir()
    for _ in range(2):  # the second time as after a kill, when the search continues
        lay_out(project, Params.parse({}, "a test"), source, removable=True)
    shutil.rmtree(source)
    assert contents(project.parent) == before
