"""The block `remote`: what is refused, and what the environment overrides."""

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


def test_stages_run_here_by_default(monkeypatch):
    monkeypatch.delenv("RENATE_STAGES_BACKEND", raising=False)
    assert backend_of(Params(), "train") == "local"


def test_params_send_them_to_sagemaker():
    assert backend_of(parsed(backend="sagemaker", **WHOLE), "train") == "sagemaker"


def test_the_environment_overrides_params(monkeypatch):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemaker")
    assert backend_of(parsed(**WHOLE), "train") == "sagemaker"
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "local")
    assert backend_of(parsed(backend="sagemaker", **WHOLE), "train") == "local"


def test_a_backend_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemakr")
    with pytest.raises(InvalidParamsError, match="local, sagemaker, found 'sagemakr'"):
        backend_of(Params(), "train")


def test_all_that_sagemaker_lacks_is_said_at_once():
    with pytest.raises(InvalidParamsError) as caught:
        backend_of(parsed(backend="sagemaker", url="gs://bucket"), "train")
    assert "remote.url" in str(caught.value) and "image_uri" in str(caught.value)


def test_a_tune_with_nothing_to_search_runs_here():
    params = parsed(backend="sagemaker", **WHOLE)
    assert backend_of(params, "tune") == "local"
    space = {"learning_rate": {"loguniform": [0.01, 0.1]}}
    searched = Params.parse({"remote": {"backend": "sagemaker", **WHOLE}, "hyperparameters": space})
    assert backend_of(searched, "tune") == "sagemaker"


def test_a_stage_that_is_not_listed_runs_here():
    assert backend_of(parsed(backend="sagemaker", stages=["tune"], **WHOLE), "train") == "local"


def test_times_may_have_units_and_a_url_no_slash_at_its_end():
    asked = parsed(sagemaker={"max_runtime": "6 h"}, url="s3://bucket/folder/").remote
    assert asked.sagemaker.max_runtime == 21600
    assert asked.url == "s3://bucket/folder"


@pytest.mark.parametrize(
    ("sagemaker", "said"),
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
def test_what_cannot_be_is_refused(sagemaker, said):
    with pytest.raises(InvalidParamsError, match=said):
        parsed(sagemaker=sagemaker)


@pytest.mark.parametrize("url", ["s3://KEY:S3CRET/x@bucket/a", "s3://bucket/a?token=S3CRET"])
def test_an_address_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(InvalidParamsError, match="without user name, password and query") as caught:
        parsed(url=url)
    assert "S3CRET" not in str(caught.value)


def test_a_project_without_the_block_stays_as_it_was(project):
    edit_params(project, seed=1)
    assert Params.load(project.params).remote.backend == "local"
