"""The simulated SageMaker endpoint behaves over HTTP as SageMaker's documentation says."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import warm_processes
from botocore.exceptions import ClientError, EndpointConnectionError

NO_RETRIES = {"retries": {"total_max_attempts": 1}}


HEAD = """
import json, os, pathlib, signal, socket, subprocess, sys, time
ml = pathlib.Path(sys.argv[1])  # /opt/ml
"""


class Submitter:
    """Submits jobs whose container runs a Python program from a channel."""

    def __init__(self, cloud: Any, bucket: str) -> None:
        self.cloud, self.bucket = cloud, bucket
        self.sagemaker = cloud.client("sagemaker")
        self.s3 = cloud.inside("s3")

    def request(self, program: str, **members: Any) -> dict[str, Any]:
        name = f"{self.bucket}-{len(self.cloud.jobs)}"
        key = f"programs/{name}.py"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=(HEAD + program).encode())
        own = channel("program", f"s3://{self.bucket}/{key}")
        inputs = [own, *members.pop("InputDataConfig", [])]
        return {
            "TrainingJobName": name,
            "RoleArn": self.cloud.role,
            "AlgorithmSpecification": {
                "TrainingImage": "image",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", f"/opt/ml/input/data/program/{name}.py"],
                "ContainerArguments": ["/opt/ml"],
            },
            "InputDataConfig": inputs,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        } | members

    def __call__(self, program: str, **members: Any) -> str:
        request = self.request(program, **members)
        self.sagemaker.create_training_job(**request)
        return request["TrainingJobName"]


@pytest.fixture
def submit(cloud, bucket) -> Submitter:
    return Submitter(cloud, bucket)


@pytest.fixture
def s3(cloud):
    return cloud.client("s3")


def channel(name: str, uri: str, kind: str = "S3Prefix") -> dict[str, Any]:
    source = {"S3Uri": uri, "S3DataType": kind, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def statuses(described: dict[str, Any]) -> list[str]:
    return [each["Status"] for each in described["SecondaryStatusTransitions"]]


def names_in(s3: Any, bucket: str, key: str) -> dict[str, str]:
    packed = io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=packed) as tar:
        return {each.name: tar.extractfile(each).read().decode() for each in tar.getmembers()}


def test_job_runs_from_its_request_alone_in_a_clean_environment(
    cloud, bucket, submit, s3, monkeypatch
):
    monkeypatch.setenv("OF_THE_PARENT", "1")
    s3.put_object(Bucket=bucket, Key="data/train/a.txt", Body=b"alpha")
    s3.put_object(Bucket=bucket, Key="data/train/sub/b.txt", Body=b"beta")
    s3.put_object(Bucket=bucket, Key="data/train-not/c.txt", Body=b"no")
    program = """
read = lambda name: json.loads((ml / "input/config" / name).read_text())
data = ml / "input/data/train"
found = {p.relative_to(data).as_posix(): p.read_text() for p in data.rglob("*") if p.is_file()}
(ml / "model/model.json").write_text(json.dumps(
    [found, dict(os.environ), read("hyperparameters.json"), read("inputdataconfig.json")]))
(ml / "output/data/report.txt").write_text("report")
print("trained", flush=True)
print("warned", file=sys.stderr)
"""
    name = submit(
        program,
        InputDataConfig=[channel("train", f"s3://{bucket}/data/train/")],
        HyperParameters={"epochs": "3"},
        Environment={"GIVEN": "yes", "WHERE": "/opt/ml/model"},
    )
    assert submit.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] in (
        "InProgress",
        "Completed",
    )
    cloud.wait(name)

    described = submit.sagemaker.describe_training_job(TrainingJobName=name)
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Completed"
    phases = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert statuses(described) == phases
    assert described["CreationTime"] <= described["TrainingStartTime"]
    assert described["TrainingStartTime"] <= described["TrainingEndTime"]
    assert described["TrainingTimeInSeconds"] == described["BillableTimeInSeconds"] > 0
    artifacts = f"s3://{bucket}/out/{name}/output/model.tar.gz"
    assert described["ModelArtifacts"] == {"S3ModelArtifacts": artifacts}
    assert cloud.log(name).splitlines() == ["trained", "warned"]
    assert cloud.requests[name]["HyperParameters"] == {"epochs": "3"}

    found, environment, hyperparameters, channels = json.loads(
        names_in(s3, bucket, f"out/{name}/output/model.tar.gz")["model.json"]
    )
    assert found == {"a.txt": "alpha", "sub/b.txt": "beta"}
    assert hyperparameters == {"epochs": "3"}
    assert channels["train"]["S3DistributionType"] == "FullyReplicated"
    assert set(environment) == {
        *("PATH", "HOME", "TMPDIR", "LANG", "TRAINING_JOB_NAME", "TRAINING_JOB_ARN"),
        *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED", "GIVEN", "WHERE"),
    }
    assert environment["GIVEN"] == "yes"
    assert environment["WHERE"] == str(cloud.jobs[name].folders[0] / "model")
    report = names_in(s3, bucket, f"out/{name}/output/output.tar.gz")
    assert report == {"report.txt": "report"}


def test_image_has_locked_packages_and_pip_but_not_this_library(cloud, bucket, submit, s3):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("renate_stages/__init__.py", "whose = 'of the wheel'")
        about = "renate_stages-0.1.0.dist-info"
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: renate-stages\nVersion: 0.1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    key = "wheels/renate_stages-0.1.0-py3-none-any.whl"
    s3.put_object(Bucket=bucket, Key=key, Body=wheel.getvalue())
    program = """
import importlib.util, importlib.metadata
assert importlib.util.find_spec("renate_stages") is None
assert "renate-stages" not in {d.metadata["Name"] for d in importlib.metadata.distributions()}
import numpy, torch
wheel = ml / "input/data/code/renate_stages-0.1.0-py3-none-any.whl"
subprocess.run(["pip", "install", "--no-index", "--no-deps", wheel], check=True)
import renate_stages
print(renate_stages.whose, "below the container" * renate_stages.__file__.startswith(sys.prefix))
"""
    name = submit(program, InputDataConfig=[channel("code", f"s3://{bucket}/wheels")])
    described = cloud.wait(name)
    assert described["TrainingJobStatus"] == "Completed", cloud.log(name)
    assert cloud.log(name).splitlines()[-1] == "of the wheel below the container"
    again = submit("import importlib.util as i; assert not i.find_spec('renate_stages')")
    assert cloud.wait(again)["TrainingJobStatus"] == "Completed", cloud.log(again)


def test_failed_job_reports_its_failure_reason(cloud, bucket, submit):
    left = '(ml / "output/failure").write_text("diverged " * 200); exit(3)'
    described = cloud.wait(submit(left))
    assert described["TrainingJobStatus"] == "Failed"
    assert statuses(described)[-1] == "Failed"
    reason = described["FailureReason"]
    assert reason.startswith("AlgorithmError: diverged diverged") and reason.endswith("code: 3")
    assert len(reason) <= 1024
    assert cloud.wait(submit("1 / 0"))["FailureReason"] == "AlgorithmError: , exit code: 1"
    killed = cloud.wait(submit("os.kill(os.getpid(), 9)"))
    assert killed["FailureReason"] == "AlgorithmError: , exit code: 137"


LONG = """
steps = ml / "checkpoints/steps"
done = int(steps.read_text()) if steps.exists() else 0
print("begins at", done, flush=True)
def end(number, frame):
    (ml / "model/last").write_text("saved at the end")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
(ml / "model/ready").touch()
while done < 1000:
    done += 1
    steps.with_suffix(".new").write_text(str(done))  # the signal may come while it is written
    steps.with_suffix(".new").replace(steps)
    time.sleep(0.02)
"""


def wait_until_ready(cloud: Any, name: str) -> None:
    cloud.wait(name, "Training")
    end = time.monotonic() + 20
    while not (cloud.jobs[name].folders[0] / "model" / "ready").exists():
        assert time.monotonic() < end, cloud.log(name)
        time.sleep(0.02)


def test_stopped_job_can_save_before_it_ends(cloud, bucket, submit, s3):
    name = submit(LONG)
    wait_until_ready(cloud, name)
    submit.sagemaker.stop_training_job(TrainingJobName=name)
    described = cloud.wait(name)
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert statuses(described)[-3:] == ["Stopping", "Uploading", "Stopped"]
    saved = names_in(s3, bucket, f"out/{name}/output/model.tar.gz")
    assert saved == {"last": "saved at the end", "ready": ""}
    with pytest.raises(ClientError, match="training job is in status Stopped"):
        submit.sagemaker.stop_training_job(TrainingJobName=name)


def test_stopped_job_without_signal_handler_is_killed_with_its_children(
    cloud, bucket, submit, monkeypatch
):
    monkeypatch.setattr(cloud.api.job_context, "stop_grace", 0.5)
    program = """
child = f"import time, pathlib; pathlib.Path('{ml}/model/ready').touch(); time.sleep(600)"
subprocess.run([sys.executable, "-c", child], start_new_session=True)
"""
    name = submit(program)
    wait_until_ready(cloud, name)
    from cloud.processes import inside

    folder = cloud.jobs[name].containers[0].folder
    assert len(inside(folder)) == 2
    began = time.monotonic()
    submit.sagemaker.stop_training_job(TrainingJobName=name)
    assert cloud.wait(name)["SecondaryStatus"] == "Stopped"
    assert time.monotonic() - began > 0.5
    assert inside(folder) == []


KILLED_TEST_PROGRAM = """
import os, sys, time
from cloud import Cloud
from test_cloud import Submitter

cloud = Cloud().start()
cloud.inside("s3").create_bucket(Bucket="bucket")
name = Submitter(cloud, "bucket")("(ml / 'model/ready').touch(); time.sleep(600)")
cloud.wait(name, "Training")
while not (cloud.jobs[name].folders[0] / "model" / "ready").exists():
    time.sleep(0.02)
print(cloud.jobs[name].containers[0].folder)
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""


def test_jobs_end_when_the_test_process_is_killed():
    from cloud.processes import inside

    helpers = (Path(__file__).parent, Path(warm_processes.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_TEST_PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, helpers))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    folder = Path(done.stdout.strip())
    end = time.monotonic() + 10
    while folder.exists() or inside(folder):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_job_that_exceeds_max_runtime_is_stopped(cloud, bucket, submit):
    name = submit(LONG, StoppingCondition={"MaxRuntimeInSeconds": 1})
    described = cloud.wait(name)
    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"


def test_interrupted_spot_job_resumes_from_its_checkpoint(cloud, bucket, submit, s3):
    name = submit(
        LONG,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
        CheckpointConfig={"S3Uri": f"s3://{bucket}/checkpoints"},
    )
    wait_until_ready(cloud, name)
    cloud.interrupt(name)
    wait_until_ready(cloud, name)
    submit.sagemaker.stop_training_job(TrainingJobName=name)
    described = cloud.wait(name)
    once = ["Starting", "Downloading", "Training"]
    assert statuses(described) == [*once, "Interrupted", *once, "Stopping", "Uploading", "Stopped"]
    begun = [int(line.split()[-1]) for line in cloud.log(name).splitlines()]
    assert begun[0] == 0 < begun[1]
    kept = int(s3.get_object(Bucket=bucket, Key="checkpoints/steps")["Body"].read())
    assert kept >= begun[1]
    assert described["BillableTimeInSeconds"] <= described["TrainingTimeInSeconds"]


def test_manifest_selects_the_files_of_a_channel(cloud, bucket, submit, s3):
    for key in ("objects/00/aa", "objects/11/bb", "objects/22/cc"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    manifest = [{"prefix": f"s3://{bucket}/objects/"}, "00/aa", "22/cc"]
    s3.put_object(Bucket=bucket, Key="manifest", Body=json.dumps(manifest).encode())
    shown = "print(*sorted(os.path.join(r, f) for r, _, fs in os.walk('.') for f in fs))"
    program = f"os.chdir(ml / 'input/data/parent')\n{shown}"
    inputs = [channel("parent", f"s3://{bucket}/manifest", "ManifestFile")]
    name = submit(program, InputDataConfig=inputs)
    assert cloud.wait(name)["TrainingJobStatus"] == "Completed", cloud.log(name)
    assert cloud.log(name) == "./00/aa ./22/cc"

    s3.put_object(Bucket=bucket, Key="manifest", Body=json.dumps([*manifest, "no"]).encode())
    failed = cloud.wait(submit(program, InputDataConfig=inputs))
    assert failed["FailureReason"].startswith("ClientError: Data download failed")


def test_each_host_has_its_own_folder_and_can_connect_to_the_first_host(cloud, bucket, submit, s3):
    program = """
resources = json.loads((ml / "input/config/resourceconfig.json").read_text())
hosts, me = resources["hosts"], resources["current_host"]
if me == hosts[0]:
    with socket.create_server((hosts[0], 0)) as server:
        here = ml.parents[2] / "port"  # replaces a port agreed in advance
        here.with_suffix(".new").write_text(str(server.getsockname()[1]))
        here.with_suffix(".new").rename(here)
        server.settimeout(20)
        connection, (address, _) = server.accept()
        with connection:
            said = connection.recv(100).decode()
    (ml / "model" / "heard").write_text(said)
else:
    port = ml.parents[2] / "port"
    while not port.exists():
        time.sleep(0.02)
    with socket.create_connection((hosts[0], int(port.read_text()))) as connection:
        connection.sendall(me.encode())
    (ml / "model" / "of-the-second").touch()
"""
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    name = submit(program, ResourceConfig=resources)
    assert cloud.wait(name)["TrainingJobStatus"] == "Completed", cloud.log(name)
    made = names_in(s3, bucket, f"out/{name}/output/model.tar.gz")
    assert made == {"heard": "127.0.0.2", "of-the-second": ""}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"TrainingJobName": "no_underscores"}, "'trainingJobName' failed to satisfy constraint"),
        ({"TrainingJobName": "n" * 64}, "length less than or equal to 63"),
        ({"RoleArn": "arn:aws:iam::1:role/short-account"}, "'roleArn' failed"),
        ({"HyperParameters": {"k": "v" * 2501}}, "less than or equal to 2500"),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingImage": "image",
                    "TrainingInputMode": "File",
                    "ContainerArguments": ["a\nb"],
                }
            },
            "containerArguments.1.member' failed",
        ),
        ({"Environment": {"K": "v" * 513}}, "less than or equal to 512"),
        ({"Environment": {f"K{n}": "" for n in range(101)}}, "less than or equal to 100"),
        ({"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]}, "less than or equal to 50"),
        ({"Tags": [{"Key": "no;", "Value": ""}]}, "'tags.1.member.key' failed"),
        ({"StoppingCondition": {}}, "MaxRuntimeInSeconds must be specified"),
        (
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 8},
            },
            "MaxWaitTimeInSeconds must be equal to or greater",
        ),
        (
            {
                "ResourceConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 0,
                }
            },
            "VolumeSizeInGB must be at least 1",
        ),
        ({"InputDataConfig": [channel("c", "s3://nothing/here")]}, "No S3 objects found"),
    ],
)
def test_invalid_training_job_request_is_refused(submit, members, message):
    request = submit.request("pass", **members)
    with pytest.raises(ClientError, match=message) as caught:
        submit.sagemaker.create_training_job(**request)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert request["TrainingJobName"] not in submit.cloud.requests


def test_duplicate_and_unknown_job_names_are_refused(cloud, bucket, submit):
    name = submit("pass")
    with pytest.raises(ClientError, match="must be unique") as caught:
        submit("pass", TrainingJobName=name)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    with pytest.raises(ClientError, match="Requested resource not found"):
        submit.sagemaker.describe_training_job(TrainingJobName="unknown")


def test_jobs_are_listed_and_tagged(cloud, bucket, submit):
    jobs = [submit("pass", Tags=[{"Key": "n", "Value": str(n)}]) for n in range(3)]
    for name in jobs:
        cloud.wait(name)
    jobs.append(submit("exit(1)"))
    cloud.wait(jobs[-1])
    sagemaker = submit.sagemaker

    def listed(**asked: Any) -> list[str]:
        pages = sagemaker.get_paginator("list_training_jobs").paginate(
            NameContains=bucket, PaginationConfig={"PageSize": 2}, **asked
        )
        return [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]

    assert listed() == jobs
    assert listed(SortOrder="Descending", SortBy="CreationTime") == jobs[::-1]
    assert listed(StatusEquals="Failed") == jobs[3:]
    created = sagemaker.describe_training_job(TrainingJobName=jobs[2])["CreationTime"]
    hour = timedelta(hours=1)
    assert listed(CreationTimeAfter=created - hour) == jobs
    assert listed(CreationTimeAfter=created + hour) == []

    arn = sagemaker.describe_training_job(TrainingJobName=jobs[1])["TrainingJobArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "more", "Value": "yes"}])
    tags = sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert tags == [{"Key": "n", "Value": "1"}, {"Key": "more", "Value": "yes"}]


def test_caller_identity_and_role_permissions_can_be_queried(cloud):
    account = cloud.client("sts").get_caller_identity()["Account"]
    assert account in cloud.role
    iam = cloud.client("iam")
    assert iam.get_role(RoleName=cloud.role.rpartition("/")[2])["Role"]["Arn"] == cloud.role
    answer = iam.simulate_principal_policy(
        PolicySourceArn=cloud.role, ActionNames=["s3:GetObject", "s3:PutObject"]
    )
    decisions = {e["EvalActionName"]: e["EvalDecision"] for e in answer["EvaluationResults"]}
    assert decisions == {"s3:GetObject": "allowed", "s3:PutObject": "allowed"}


def test_client_retries_throttled_failed_and_dropped_requests(cloud, bucket, submit, s3):
    faults = [
        cloud.throttle("CreateTrainingJob"),
        cloud.fail("DescribeTrainingJob"),
        cloud.drop("s3:PutObject"),
        cloud.throttle("s3:GetObject"),
        cloud.delay("s3:ListObjects*", seconds=0.3),
    ]
    name = submit("pass")
    submit.sagemaker.describe_training_job(TrainingJobName=name)
    s3.put_object(Bucket=bucket, Key="key", Body=b"x" * 100_000)
    assert len(s3.get_object(Bucket=bucket, Key="key")["Body"].read()) == 100_000
    began = time.monotonic()
    s3.list_objects_v2(Bucket=bucket)
    assert time.monotonic() - began > 0.3
    assert [fault.hits for fault in faults] == [1] * 5


def test_job_is_created_even_if_the_answer_is_lost(cloud, bucket, submit):
    cloud.lose_answer("CreateTrainingJob")
    with pytest.raises(ClientError, match="must be unique"):
        submit("pass")  # botocore retries
    cloud.refuse("CreateTrainingJob", "ResourceLimitExceeded", "no quota", times=1)
    with pytest.raises(ClientError, match="no quota") as caught:
        submit("pass")
    assert caught.value.response["Error"]["Code"] == "ResourceLimitExceeded"
    assert cloud.wait(submit("pass"))["TrainingJobStatus"] == "Completed"


def test_job_finishes_while_its_client_is_offline(cloud, bucket, submit):
    name = submit("(ml / 'model/made').touch()")
    with cloud.offline():
        for service in ("sagemaker", "s3"):
            client = cloud.client(service, **NO_RETRIES)
            with pytest.raises(EndpointConnectionError):
                client.list_training_jobs() if service == "sagemaker" else client.list_buckets()
        cloud.wait(name)
    described = submit.sagemaker.describe_training_job(TrainingJobName=name)
    assert described["TrainingJobStatus"] == "Completed"


def test_only_transfers_of_the_client_are_counted(cloud, bucket, submit, s3):
    s3.put_object(Bucket=bucket, Key="in/before", Body=b"123")
    mark = cloud.mark()
    s3.put_object(Bucket=bucket, Key="in/one", Body=b"12345")
    big = io.BytesIO(b"x" * (9 << 20))  # large enough for a multipart upload by boto3
    s3.upload_fileobj(big, bucket, "in/big")
    name = submit(
        "(ml / 'model/made').write_text('m')",
        InputDataConfig=[channel("in", f"s3://{bucket}/in/")],
    )
    cloud.wait(name)
    s3.download_fileobj(bucket, "in/big", io.BytesIO())
    s3.head_object(Bucket=bucket, Key="in/one")
    under = f"s3://{bucket}/"
    assert cloud.uploads(mark, under) == {"in/one": 5, "in/big": 9 << 20}
    assert cloud.downloads(mark, under) == {"in/big": 9 << 20}
    assert "s3:HeadObject" in {call.name for call in cloud.calls(mark)}


TRAINER = """
import sys, time
from sagemaker.core.helper.session_helper import Session
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode

bucket, role, folder = sys.argv[1:]
trainer = ModelTrainer(
    training_image="image",
    role=role,
    base_job_name=bucket,
    sagemaker_session=Session(default_bucket=bucket),
    source_code=SourceCode(source_dir=folder, command="python3 program.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=5),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/out"),
    environment={"GIVEN": "yes"},
)
trainer.train(wait=False)
job = trainer._latest_training_job
job.wait(poll=1, timeout=60)
print(job.training_job_name, job.training_job_status)
"""


def test_model_trainer_of_the_sagemaker_sdk_runs_a_program(
    cloud, bucket, s3, tmp_path, sagemaker_python
):
    (tmp_path / "program.py").write_text(
        "import os, pathlib\n"
        "assert os.environ['GIVEN'] == 'yes'\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'made').write_text('by ModelTrainer')\n"
    )
    done = subprocess.run(
        [sagemaker_python, "-c", TRAINER, bucket, cloud.role, tmp_path],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **cloud.client_environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, status = done.stdout.splitlines()[-1].split()
    assert status == "Completed", cloud.log(name)
    made = names_in(s3, bucket, f"out/{name}/output/model.tar.gz")
    assert made == {"made": "by ModelTrainer"}
