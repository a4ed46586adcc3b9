"""The `remote` block of params: validation and override by an environment variable."""

from __future__ import annotations

import pytest
from small_project import edit_params

from renate_stages.errors import InvalidParamsError
from renate_stages.params import Params
from renate_stages.remote.cloud import backend_of

WHOLE = {
    "url": "s3://bucket/folder/",
    "sagemaker": {"image_uri": "1.dkr.ecr.eu-west-1.amazonaws.com/x:1"},
}


def parsed(**remote) -> Params:
    return Params.parse({"remote": remote})


def test_stages_run_locally_by_default(monkeypatch):
    monkeypatch.delenv("RENATE_STAGES_BACKEND", raising=False)
    assert backend_of(Params(), "train") == "local"


def test_params_select_sagemaker_as_backend():
    assert backend_of(parsed(backend="sagemaker", **WHOLE), "train") == "sagemaker"


def test_environment_variable_overrides_the_backend_in_params(monkeypatch):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemaker")
    assert backend_of(parsed(**WHOLE), "train") == "sagemaker"
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "local")
    assert backend_of(parsed(backend="sagemaker", **WHOLE), "train") == "local"


def test_unknown_backend_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemakr")
    with pytest.raises(InvalidParamsError, match="local, sagemaker, found 'sagemakr'"):
        backend_of(Params(), "train")


def test_all_missing_sagemaker_settings_are_reported_at_once():
    with pytest.raises(InvalidParamsError) as caught:
        backend_of(parsed(backend="sagemaker", url="gs://bucket"), "train")
    assert "remote.url" in str(caught.value) and "image_uri" in str(caught.value)


def test_tune_without_a_search_space_runs_locally():
    params = parsed(backend="sagemaker", **WHOLE)
    assert backend_of(params, "tune") == "local"
    space = {"learning_rate": {"loguniform": [0.01, 0.1]}}
    searched = Params.parse({"remote": {"backend": "sagemaker", **WHOLE}, "hyperparameters": space})
    assert backend_of(searched, "tune") == "sagemaker"


def test_stage_missing_from_remote_stages_runs_locally():
    assert backend_of(parsed(backend="sagemaker", stages=["tune"], **WHOLE), "train") == "local"


def test_max_runtime_accepts_a_unit_and_trailing_slash_of_url_is_removed():
    asked = parsed(sagemaker={"max_runtime": "6 h"}, url="s3://bucket/folder/").remote
    assert asked.sagemaker.max_runtime == 21600
    assert asked.url == "s3://bucket/folder"


@pytest.mark.parametrize(
    ("sagemaker", "message"),
    [
        ({"max_wait": "1 h"}, "spot: true"),
        (
            {"spot": True, "max_runtime": "2 h", "max_wait": "1 h"},
            "includes max_runtime, so it must be at least 7200 s",
        ),
        ({"subnets": ["subnet-1"]}, "together"),
        ({"instance_count": 0}, "instance_count"),
        ({"instance_typ": "ml.m5.large"}, "did you mean 'instance_type'"),
    ],
)
def test_invalid_sagemaker_settings_are_refused(sagemaker, message):
    with pytest.raises(InvalidParamsError, match=message):
        parsed(sagemaker=sagemaker)


@pytest.mark.parametrize("url", ["s3://KEY:S3CRET/x@bucket/a", "s3://bucket/a?token=S3CRET"])
def test_url_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(InvalidParamsError, match="without user name, password and query") as caught:
        parsed(url=url)
    assert "S3CRET" not in str(caught.value)


def test_project_without_a_remote_block_runs_locally(project):
    edit_params(project, seed=1)
    assert Params.load(project.params).remote.backend == "local"
