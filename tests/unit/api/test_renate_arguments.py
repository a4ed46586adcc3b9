"""Arguments of Renate's `run_training_job`: honoured, named in one line, or refused by name."""

from __future__ import annotations

import inspect

import pytest
from small_project import REPOSITORY
from test_arguments import CONFIG

from renate_stages import errors, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.api import job_arguments, run_stages
from renate_stages.api.job_arguments import RENATES_ORDER
from renate_stages.compat.renate.training import run_training_job as renates
from renate_stages.compat.renate.training import training
from renate_stages.files import yaml_file
from renate_stages.project import Outside, Project

DEFAULTS = {
    name: each.default
    for name, each in inspect.signature(run_training_job).parameters.items()
    if each.default is not each.empty
}
CLOUD = {
    "backend": "sagemaker",
    "remote": {"url": "s3://bucket/jobs", "sagemaker": {"image_uri": "image"}},
}


def params(**given):
    arguments = {**DEFAULTS, "config_space": {}, **given}
    return job_arguments.params_of(arguments, 0, job_arguments.files_for_jobs(arguments))


def test_every_argument_of_renate_is_accepted_in_its_order():
    known = inspect.signature(run_training_job).parameters
    assert set(RENATES_ORDER) <= set(known)
    signature = list(inspect.signature(renates).parameters)
    assert signature == [*RENATES_ORDER, "ours"]


def test_call_in_renates_order_equals_a_call_by_name(tmp_path, monkeypatch):
    write_digits(tmp_path / "work" / "data", 1)
    space = {"hidden_size": 8, "memory_size": 20}
    config = REPOSITORY / "renate_config.py"
    work, out = tmp_path / "work", tmp_path / "state"
    place = (None, None, out, work, None, config)
    ordered = run_training_job(
        "max", space, "val_accuracy", "local", "ER", 1, "task", *place, seed=3
    )
    named = run_training_job(
        space, max_epochs=1, task_id="task", config_file=config, working_directory=work, seed=3
    )
    assert ordered.curves == named.curves and ordered.state is not None
    assert ordered.state.folder == out
    with pytest.raises(TypeError, match="multiple values for argument 'mode'"):
        run_training_job("max", space, mode="max")


@pytest.mark.parametrize(
    ("given", "full"),
    [("32", "32-true"), ("16", "16-mixed"), ("bf16", "bf16-mixed"), ("64", "64-true"), (32, "32-true")],
)  # fmt: skip
def test_short_precisions_are_accepted(given, full):
    assert params(precision=given).trainer.precision == full


def test_trainer_arguments_are_written_to_the_block_trainer():
    trainer = params(
        strategy="ddp", gradient_clip_val=0.5, gradient_clip_algorithm="value", devices=2
    ).trainer
    assert (trainer.strategy, trainer.gradient_clip_val) == ("ddp", 0.5)
    assert trainer.gradient_clip_algorithm == "value"
    assert (
        params().trainer.deterministic
        and not params(deterministic_trainer=False).trainer.deterministic
    )


def test_completed_trials_limit_the_search():
    tuning = params(max_num_trials_completed=3).tuning
    assert (tuning.max_completed, tuning.max_trials) == (3, None)
    assert params(max_num_trials_started=5, max_num_trials_finished=4).tuning.max_trials == 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_cost": 3.0}, r"run_training_job, max_cost=3.0: [\s\S]*To fix this: set max_time"),
        ({"strategy": "deepspeed_stage_2"}, r"deepspeed_stage_2 splits the weights[\s\S]*use ddp"),
        ({"gradient_clip_algorithm": "median"}, "gradient_clip_algorithm"),
        ({"updater": "LearningToPrompt"}, "the nearest learner is RanPAC"),
        ({"compat": "renato"}, 'set compat="renate"'),
        ({**CLOUD, "dependencies": ["nowhere.py"]}, "nowhere.py is missing: dependencies"),
    ],
)  # fmt: skip
def test_argument_that_cannot_be_honoured_is_refused_by_name(given, expected):
    with pytest.raises(errors.RenateStagesError, match=expected):
        params(**given)


def test_arguments_for_sagemaker_are_written_to_the_block_remote(tmp_path, capsys):
    for name in ("code/extra.py", "code/renate_config.py", "words/list.txt", "more.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    given = {
        **CLOUD,
        "config_file": tmp_path / "code" / "renate_config.py",
        "role": "arn:role",
        "instance_type": "ml.g5.xlarge",
        "instance_count": 2,
        "instance_max_time": 3600,
        "volume_size": 60,
        "job_name": "nightly",
        "dependencies": [str(tmp_path / "code" / "extra.py"), tmp_path / "words"],
        "requirements_file": tmp_path / "more.txt",
    }
    found = params(**given)
    block = found.remote.sagemaker
    assert (block.role, block.instance_type, block.instance_count) == (
        "arn:role",
        "ml.g5.xlarge",
        2,
    )
    assert (block.max_runtime, block.volume_gb, block.image_uri) == (3600.0, 60, "image")
    assert block.tags == {"job_name": "nightly"} and found.trainer.num_nodes == 2
    assert found.remote.requirements == "more.txt"
    printed = capsys.readouterr().out.splitlines()
    assert (
        len(printed) == 2 and "trainer.num_nodes 2" in printed[0] and "tag job_name" in printed[1]
    )

    files = job_arguments.files_for_jobs({**DEFAULTS, **given})
    assert list(files) == ["extra.py", "words", "more.txt"]
    outside = Outside(given["config_file"], tmp_path, (), {"renate_config.py": "", "extra.py": "0"})
    made = run_stages.self_contained(Project(tmp_path / "job", outside), files)
    assert (made.root / "words" / "list.txt").read_text() == "x = 1\n"
    deps = yaml_file.read(made.root / "dvc.yaml")["stages"]["train"]["deps"]
    assert {"extra.py", "words", "more.txt", "renate_config.py"} <= {*deps}
    assert deps.count("extra.py") == 1


def test_argument_for_sagemaker_that_contradicts_remote_is_refused():
    remote = {**CLOUD["remote"], "sagemaker": {"image_uri": "image", "role": "one"}}
    with pytest.raises(errors.InvalidParamsError, match=r"remote\.sagemaker\.role: also set"):
        params(**{**CLOUD, "remote": remote}, role="another")


def test_arguments_for_sagemaker_are_named_if_the_backend_is_local(capsys):
    params(role="arn:role", dependencies=["nowhere"])
    assert capsys.readouterr().out == "role, dependencies: used only with backend='sagemaker'\n"


@pytest.mark.parametrize("takes", [True, False])
def test_chunk_id_is_passed_to_a_data_module_fn_that_takes_it(tmp_path, takes):
    own = CONFIG.replace("data_path):", "data_path, chunk_id: int):") if takes else CONFIG
    own = (
        own.replace('AssertionError("data was read")', "AssertionError(f'chunk {chunk_id}')")
        if takes
        else own
    )
    (tmp_path / "renate_config.py").write_text(own)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("1")
    expected = "chunk 7" if takes else "chunk_id is given, but data_module_fn has no such argument"
    with pytest.raises(errors.UserConfigError, match=expected):
        run_training_job(
            {},
            config_file=tmp_path / "renate_config.py",
            data_path=tmp_path / "data",
            working_directory=tmp_path / "work",
            chunk_id=7,
        )


def test_native_job_has_none_of_renates_defaults(capsys):
    found = params(config_space={"batch_memory_frac": 0.25, "batch_size": 32})
    assert found.hyperparameters == {"batch_size": 24, "memory_batch_size": 8}
    assert found.data.validation_fraction == 0.1 and found.trainer.keep == "last"
    assert found.tuning.scheduler == "rush" and capsys.readouterr().out == ""


def test_compat_uses_renates_defaults_and_says_which(capsys):
    found = params(compat="renate", config_space={"alpha": 0.5})
    assert found.hyperparameters["replay_weight"] == 0.5
    assert found.hyperparameters["memory_size"] == 32
    assert found.data.validation_fraction == 0 and found.trainer.keep == "auto"
    assert found.tuning.scheduler == "random" and found.trainer.accelerator == "auto"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Renate's defaults: batch_size 16") and "replay_weight" not in line


@pytest.mark.parametrize("given", [{}, {"instance_type": "ml.p3.2xlarge"}])
def test_renates_defaults_for_sagemaker_yield_to_the_block_remote(given, monkeypatch):
    found = {}
    monkeypatch.setattr(training, "run_job", lambda *_, **named: found.update(named))
    remote = {"url": "s3://bucket/jobs", "sagemaker": {"volume_gb": 10}}
    renates("max", {}, "val_accuracy", "sagemaker", remote=remote, **given)
    assert found["instance_type"] == given.get("instance_type", "ml.c5.xlarge")
    assert found["instance_max_time"] == 3 * 24 * 3600 and "volume_size" not in found
    assert "job_name" not in found and found["compat"] == "renate"
    found.clear()
    renates("max", {}, None, "local")
    assert "instance_type" not in found and found["strategy"] == "auto"
