"""Stages that run in SageMaker: identical results, errors, interruptions, resume."""

from __future__ import annotations

import json
import re
import signal
import time
import zipfile
from pathlib import Path

from cloud_project import BACKEND, CloudProject, in_cloud, jobs_of


def test_stages_in_sagemaker_write_the_same_dvc_lock_as_local_stages(project, cloud, bucket):
    there = in_cloud(project)
    objects = f"s3://{bucket}/updates/objects/"
    there.run("dvc", "repro")
    there.commit("Update 1")
    there.run("renate-stages", "next")
    there.put_digits(2)
    there.change(
        hyperparameters__learning_rate={"loguniform": [0.02, 0.2]},
        tuning__max_trials=2,
    )
    known = set(there.hashes(".").values())
    earlier, second = set(cloud.uploads(under=objects)), cloud.mark()
    message = there.run("dvc", "repro")

    tune, train = jobs_of(cloud, there)[1:]  # in update 1 there was nothing to search
    assert tune.startswith("renate-tune-") and train.startswith("renate-train-")
    assert "update 2:" in message  # the stage's own lines
    assert "Training" in message and "Completed" in message  # the job's states
    runs = [run for run in there.runs if "remote.job" in run]  # trials are nested under one
    assert [(run["name"], run["status"]) for run in runs] == [
        ("update-1", "FINISHED"),
        ("tuning of update-2", "FINISHED"),
        ("update-2", "FINISHED"),
    ]
    assert [run["remote.job"] for run in runs] == jobs_of(cloud, there)

    sent = cloud.uploads(second, under=objects)
    assert sent and not set(sent) & earlier
    assert reported_bytes(message, "sent") == sum(sent.values())
    assert reported_bytes(message, "downloaded") == sum(
        cloud.downloads(second, under=objects).values()
    )
    brought = {name.replace("/", "") for name in cloud.downloads(second, under=objects)}
    assert brought and not brought & known
    made = ("state", "plots", "work/tuning", "tuned.yaml", "metrics/update.json")
    size = sum(
        path.stat().st_size
        for name in made
        for path in (there.root / name, *(there.root / name).rglob("*"))
        if path.is_file()
    )
    assert 0 < sum(cloud.downloads(second, under=objects).values()) < size

    lock = there.read("dvc.lock")
    project.run("dvc", "repro", "--force", "--single-item", "tune", "train")
    assert there.read("dvc.lock") == lock
    assert len(jobs_of(cloud, there)) == 3


def test_user_error_in_a_job_is_reported_like_a_local_one(ready, cloud):
    ready.change(hyperparameters__learning_rate=-1.0)
    ready.run("renate-stages", "tune")
    message = ready.run("renate-stages", "train", code=2)
    assert "hyperparameters.learning_rate: expected a number > 0, found -1.0" in message
    assert "handle_error" not in message  # log lines of the container around the error
    (job,) = jobs_of(cloud, ready)
    assert cloud.jobs[job].describe()["FailureReason"].startswith("AlgorithmError: ")
    assert not (ready.root / "state").exists()


def test_exception_in_a_job_is_reported_with_its_traceback_and_rerun_succeeds(ready, cloud):
    broken = "class Broken(MLP):\n    def forward(self, *_, **__):\n        raise RuntimeError('no')\n\n\n"
    whole = ready.read("renate_config.py")
    changed = whole.replace("def model_fn", f"{broken}def model_fn").replace(
        "MLP(num", "Broken(num"
    )
    (ready.root / "renate_config.py").write_text(changed)
    message = ready.run("renate-stages", "train", code=2)
    assert "  |     raise RuntimeError('no')" in message and "renate_config.py" in message
    assert not (ready.root / "state").exists()

    (ready.root / "renate_config.py").write_text(whole)
    cloud.lose_answer("CreateTrainingJob")  # the job is created, but the answer is lost
    cloud.throttle("DescribeTrainingJob", times=3)
    cloud.throttle("s3:PutObject", times=3)
    ready.run("renate-stages", "train")
    assert (ready.root / "state" / "state.json").is_file()
    assert len(jobs_of(cloud, ready)) == 2


def test_rerun_attaches_to_a_running_job_or_reuses_results_of_a_completed_job(ready, cloud):
    slow_down_training(ready)
    left = start_and_detach_from_job(ready, cloud)
    mark = cloud.mark()
    attached = ready.start("renate-stages", "train")
    wait_for(lambda: calls_named(cloud, mark, "logs:GetLogEvents"))
    with cloud.offline():
        time.sleep(2)
    assert attached.wait(120) == 0
    assert jobs_of(cloud, ready) == [left]

    (ready.root / "state").rename(ready.root / "state-before")
    cloud.wait(left)
    mark = cloud.mark()
    message = ready.run("renate-stages", "train")
    assert "a job with the same inputs has produced them" in message
    assert jobs_of(cloud, ready) == [left]
    assert not calls_named(cloud, mark, "sagemaker:CreateTrainingJob")
    assert ready.hashes("state") == ready.hashes("state-before")


def test_interrupted_or_stopped_training_resumes_with_identical_bytes(ready, cloud):
    slow_down_training(ready)
    ready.change(
        remote__sagemaker__spot=True,
        remote__sagemaker__environment={"RENATE_STAGES_CHECKPOINT_SECONDS": "0"},
    )
    running = ready.start("renate-stages", "train")
    (job,) = wait_for(lambda: jobs_of(cloud, ready))
    wait_for(lambda: saved_checkpoints(cloud, ready))
    cloud.interrupt(job)
    wait_for(lambda: "Training" in cloud.wait(job, "Training")["SecondaryStatus"])
    ready.run("renate-stages", "remote", "stop", job)
    assert running.wait(120) == 1

    message = ready.run("renate-stages", "train")
    assert "after epoch" in message  # training resumed or was complete
    there = ready.hashes("state")
    (ready.root / "state").rename(ready.root / "state-there")
    ready.run("env", f"{BACKEND}=local", "renate-stages", "train")
    assert ready.hashes("state") == there


def test_job_refused_by_the_account_is_reported_with_a_fix(ready, cloud):
    message = "The account-level service limit 'ml.m5.xlarge for training job usage' is 0 Instances"
    cloud.refuse("CreateTrainingJob", "ResourceLimitExceeded", message)
    shown = ready.run("renate-stages", "train", code=2)
    assert message in shown and "Service Quotas" in shown
    ready.change(remote__sagemaker__role=cloud.role.replace("renate-training", "nobody"))
    shown = ready.run("renate-stages", "train", code=2)
    assert "SageMaker's SDK refused the job" in shown and "nobody" in shown
    assert "Traceback" not in shown
    assert jobs_of(cloud, ready) == []


def test_job_timeout_error_names_max_runtime(ready, cloud):
    slow_down_training(ready)
    ready.change(remote__sagemaker__max_runtime=1)
    message = ready.run("renate-stages", "train", code=1)
    assert "it took longer than remote.sagemaker.max_runtime allows" in message


def test_package_missing_from_the_image_is_installed_in_the_job(ready, cloud, tmp_path):
    wheels, here = tmp_path / "wheels", tmp_path / "here"
    make_package(wheels, here)
    (ready.root / "requirements.txt").write_text("tiny-lexicon\n")
    config = ready.root / "renate_config.py"
    config.write_text("import tiny_lexicon  # noqa: F401\n" + config.read_text())
    ready.change(
        remote__requirements="requirements.txt",
        remote__sagemaker__environment={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)},
    )
    with_package = in_cloud(ready, PYTHONPATH=str(here))
    message = with_package.run("renate-stages", "train")
    (job,) = jobs_of(cloud, ready)
    assert "installing 1 packages" in cloud.log(job)
    assert "update 1:" in message


def test_remote_check_passes_all_steps(ready, cloud, bucket):
    message = ready.run("renate-stages", "remote", "check", "--submit")
    steps = [line.removeprefix("ok ").strip() for line in message.splitlines() if line[:3] == "ok "]
    assert "FAILED" not in message
    assert "quota of ml.m5.xlarge: 4" in steps
    assert f"wrote to s3://{bucket}/updates" in steps[-1]


def test_remote_check_reports_the_failed_step(ready):
    ready.change(remote__url="s3://no-such-bucket-of-ours/updates")
    message = ready.run("renate-stages", "remote", "check", code=1)
    assert "FAILED  write, read, list, remove in s3://no-such-bucket-of-ours/updates" in message
    assert "ok      role" in message


def test_two_instances_train_one_update_with_torchrun(ready, cloud):
    ready.change(
        trainer__num_nodes=2,
        remote__sagemaker__instance_count=2,
        remote__sagemaker__volume_gb=50,
        remote__sagemaker__max_runtime="2 h",
        remote__sagemaker__keep_alive="10 min",
        remote__sagemaker__subnets=["subnet-1"],
        remote__sagemaker__security_groups=["sg-1"],
        remote__sagemaker__kms_key="alias/ours",
        remote__sagemaker__tags={"team": "vision"},
    )
    message = ready.run("renate-stages", "train")
    (job,) = jobs_of(cloud, ready)
    request = cloud.requests[job]
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.m5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 50,
        "VolumeKmsKeyId": "alias/ours",
        "KeepAlivePeriodInSeconds": 600,
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}
    assert request["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert request["Tags"] == [{"Key": "team", "Value": "vision"}]
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/ours"
    assert not request.get("HyperParameters")
    assert message.count("update 1:") == 1
    assert json.loads(ready.read("state/state.json"))["update"] == 1


def test_run_training_job_in_sagemaker_gives_the_same_results_as_locally(ready, cloud, bucket):
    program = """if True:
        import json, math, sys
        from renate_stages import run_training_job

        remote = json.loads(sys.argv[1])
        given = {"data_path": "data/incoming", "max_epochs": 2}
        space = {"learning_rate": 0.05, "memory_size": 50}
        here = run_training_job(space, output_state_url="here", **given)
        url = f"{remote['url']}/states/1"
        there = run_training_job(
            space, backend="sagemaker", remote=remote, output_state_url=url, **given
        )
        assert there.metrics == here.metrics
        for ours, theirs in zip(here.curves, there.curves, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(math.isclose(ours[n], theirs[n], rel_tol=1e-7) for n in ours)
        assert there.hyperparameters == here.hyperparameters
        for name in ("model.safetensors", "learner.safetensors", "memory/index.json"):
            ours, theirs = (each.state.folder / name for each in (here, there))
            assert ours.read_bytes() == theirs.read_bytes(), name
        assert there.sent.files > 10
    """
    remote = json.dumps(dict(ready.params["remote"]))
    ready.run(str(ready.python), "-c", program, remote)
    assert len(jobs_of(cloud, ready)) == 1
    listed = cloud.inside("s3").list_objects_v2(Bucket=bucket, Prefix="updates/states/1/")
    assert "updates/states/1/state.json" in {each["Key"] for each in listed["Contents"]}


def reported_bytes(message: str, verb: str) -> int:
    """Return the transferred bytes that the stages report, summed over all jobs."""
    return sum(int(n) for n in re.findall(rf"; {verb} \d+ files, (\d+) bytes", message))


def slow_down_training(project: CloudProject) -> None:
    """Make each batch take longer, without changing the results."""
    text, anchor = project.read("renate_config.py"), "    return images.float() / 16"
    assert anchor in text
    text = text.replace(anchor, f"    time.sleep(0.03)\n{anchor}")
    text = text.replace("from pathlib", "import time\nfrom pathlib")
    (project.root / "renate_config.py").write_text(text)
    project.change(trainer__max_epochs=6)


def wait_for(found, timeout: float = 120):
    end = time.monotonic() + timeout
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


def calls_named(cloud, mark: int, name: str) -> list:
    """Return the calls of the client that have this name."""
    return [call for call in cloud.calls(mark) if call.name == name]


def saved_checkpoints(cloud, project: CloudProject) -> list[str]:
    """Return the checkpoints of the project's jobs in the bucket."""
    bucket = project.variables["BUCKET"]
    listed = cloud.inside("s3").list_objects_v2(Bucket=bucket, Prefix="updates/jobs/")
    names = [each["Key"] for each in listed.get("Contents", [])]
    return [name for name in names if name.endswith("last.ckpt")]


def start_and_detach_from_job(project: CloudProject, cloud) -> str:
    """Start `train`, detach from its job by Ctrl-C, and return the job's name."""
    mark = cloud.mark()
    process = project.start("renate-stages", "train")
    (job,) = wait_for(lambda: jobs_of(cloud, project))
    wait_for(lambda: calls_named(cloud, mark, "logs:GetLogEvents"))  # the job is followed
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert cloud.jobs[job].describe()["TrainingJobStatus"] == "InProgress"
    return job


def make_package(wheels: Path, here: Path) -> None:
    """Build a wheel of a tiny package, and install it into a local folder."""
    wheels.mkdir()
    files = {
        "tiny_lexicon.py": "WORDS = ('a', 'b')\n",
        "tiny_lexicon-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-lexicon\n"
        "Version: 1.0\n",
        "tiny_lexicon-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        "tiny_lexicon-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(wheels / "tiny_lexicon-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(text)
