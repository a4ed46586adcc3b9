"""The key of a job: a digest of exactly those inputs that its result depends on."""

from __future__ import annotations

import os

import pytest
from small_project import REPOSITORY, edit_params

from renate_stages import files
from renate_stages.api.run_stages import PIPELINE, self_contained
from renate_stages.errors import StageDefinitionError
from renate_stages.lineage import StageDefinition
from renate_stages.params import Params
from renate_stages.project import Outside, Project
from renate_stages.remote.job import Job


def key(project) -> str:
    return Job.of(project, Params.load(project.params), "train").key


def test_equal_inputs_have_the_same_job_key(ready):
    assert key(ready) == key(ready)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"trainer__max_epochs": 3},
        {"learner": "FineTuning"},
        {"remote__sagemaker": {"instance_type": "ml.g5.xlarge"}},
        {"remote__sagemaker": {"image_uri": "123.dkr.ecr.eu-west-1.amazonaws.com/ours:2"}},
        {"remote__from_image": ["torch"]},
    ],
)
def test_params_that_affect_the_result_change_the_job_key(ready, change):
    before = key(ready)
    edit_params(ready, **change)
    assert key(ready) != before


@pytest.mark.parametrize("name", ["renate_config.py", "work/prepared/index.json", "tuned.yaml"])
def test_changed_input_file_changes_the_job_key(ready, name):
    before = key(ready)
    files.write_text(ready.root / name, "other: 1\n")
    assert key(ready) != before


@pytest.mark.parametrize(
    "change",
    [
        {"tracking__experiment": "another"},
        {"export__onnx": True},
        {"shift__alpha": 0.05},
        {"remote__backend": "sagemaker"},
        {"remote__sagemaker": {"volume_gb": 100, "tags": {"team": "vision"}, "max_runtime": 60}},
    ],
)
def test_params_that_do_not_affect_the_result_keep_the_job_key(ready, change):
    before = key(ready)
    edit_params(ready, **change)
    assert key(ready) == before


def test_files_in_remote_files_are_job_inputs_and_change_the_job_key(ready):
    edit_params(ready, remote__files=["lexicon"])
    files.write_text(ready.root / "lexicon" / "words.txt", "a b")
    before = Job.of(ready, Params.load(ready.params), "train")
    assert before.files["lexicon/words.txt"]["size"] == 3
    files.write_text(ready.root / "lexicon" / "words.txt", "a b c")
    assert key(ready) != before.key


def test_only_changed_files_are_hashed_again(ready, monkeypatch):
    for path in ready.root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    read: list[str] = []
    whole = files.sha256
    monkeypatch.setattr(
        "renate_stages.files.whole.sha256", lambda path: read.append(path.name) or whole(path)
    )
    key(ready)
    assert "index.json" in read
    read.clear()
    files.write_text(ready.prepared / "index.json", "changed")
    key(ready)
    assert read == ["index.json"]
    read.clear()
    key(ready)
    assert read == ["index.json"], "a just written file could change within one clock tick"


def test_stage_output_outside_the_project_is_refused(ready):
    text = ready.pipeline.read_text().replace("- state\n", "- ../state\n")
    files.write_text(ready.pipeline, text)
    with pytest.raises(StageDefinitionError, match="not a plain relative path"):
        key(ready)


def test_python_jobs_declare_the_same_inputs_and_outputs_as_project_stages(ready, tmp_path):
    template = REPOSITORY / "template" / "{{cookiecutter.project_slug}}" / "dvc.yaml"
    assert PIPELINE.read_bytes() == template.read_bytes(), "copy the template's file"
    config = ready.user_config
    outside = Outside(config, ready.incoming, (), {config.name: files.sha256(config)})
    (tmp_path / "workplace").mkdir()
    workplace = self_contained(Project(tmp_path / "workplace", outside), {})
    for stage in ("tune", "train"):
        theirs, ours = (StageDefinition.read(each, stage) for each in (ready, workplace))
        assert set(theirs.reads) == {*ours.reads, "forget.yaml"}
        assert set(theirs.writes) == set(ours.writes)
        assert theirs.params == ours.params
