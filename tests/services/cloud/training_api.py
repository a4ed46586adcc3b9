"""SageMaker's operations on training jobs, and an operation of IAM that moto lacks."""

from __future__ import annotations

import threading
from typing import Any

from cloud.protocol import ServiceError
from cloud.storage import split
from cloud.training_jobs import JobContext, TrainingJob
from cloud.validation import check_members, check_training_job, invalid

ORDERS = {
    "Name": lambda job: job.name,
    "CreationTime": lambda job: job.status.created,
    "Status": lambda job: job.status.primary,
}
INPUT_MODES = ("File", "FastFile")


class TrainingApi:
    """Creates, describes, stops and lists training jobs.

    Args:
        job_context: What all jobs share.
        arn: Prefix of the ARNs of jobs.
    """

    def __init__(self, job_context: JobContext, arn: str) -> None:
        self.job_context, self.arn = job_context, arn
        self.jobs: dict[str, TrainingJob] = {}
        self._tags: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self.operations = {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": lambda asked: self.find(asked["TrainingJobName"]).describe(),
            "StopTrainingJob": self.stop,
            "ListTrainingJobs": self.list,
            "AddTags": self.add_tags,
            "DeleteTags": self.delete_tags,
            "ListTags": self.list_tags,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        check_members("CreateTrainingJob", request)
        check_training_job(request)
        for channel in request.get("InputDataConfig", []):
            self._check_channel(channel, request["RoleArn"])
        local = request.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
        if not local.startswith("/opt/ml/"):
            raise invalid(f"LocalPath {local}: this endpoint has nothing outside /opt/ml.")
        name = request["TrainingJobName"]
        with self._lock:
            if name in self.jobs:
                raise ServiceError(
                    "ResourceInUse",
                    "Training job names must be unique within an AWS account and region, and a "
                    f"training job with this name already exists ({self.jobs[name].arn})",
                )
            job = self.jobs[name] = TrainingJob(request, self.arn + name, self.job_context)
        self._tags[job.arn] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        job.start()
        return {"TrainingJobArn": job.arn}

    def _check_channel(self, channel: dict[str, Any], role: str) -> None:
        source = channel["DataSource"].get("S3DataSource")
        if source is None or channel.get("InputMode", "File") not in INPUT_MODES:
            raise invalid(f"Channel {channel['ChannelName']}: this endpoint has only files of S3.")
        uri = source["S3Uri"]
        if not self.job_context.storage.keys(uri):
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please '
                "ensure that the bucket exists in the selected region, that objects exist under "
                f'that S3 prefix, and that the role "{role}" has "s3:ListBucket" permissions on '
                f'bucket "{split(uri)[0]}".'
            )

    def find(self, name: str) -> TrainingJob:
        if name not in self.jobs:
            raise invalid("Requested resource not found.")
        return self.jobs[name]

    def stop(self, asked: dict[str, Any]) -> dict[str, Any]:
        job = self.find(asked["TrainingJobName"])
        if not job.stop():
            raise invalid(
                f"The request was rejected because the training job is in status {job.status.primary}."
            )
        return {}

    def list(self, asked: dict[str, Any]) -> dict[str, Any]:
        check_members("ListTrainingJobs", asked)
        jobs = sorted(
            (job for job in list(self.jobs.values()) if _matches(job, asked)),
            key=ORDERS[asked.get("SortBy", "CreationTime")],
            reverse=asked.get("SortOrder", "Ascending") == "Descending",
        )
        first, most = int(asked.get("NextToken", 0)), asked.get("MaxResults", 10)
        page = {"TrainingJobSummaries": [_summary(job) for job in jobs[first : first + most]]}
        return page | ({"NextToken": str(first + most)} if first + most < len(jobs) else {})

    def add_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        check_members("AddTags", asked)
        tags = self._tags.setdefault(asked["ResourceArn"], {})
        new = {tag["Key"]: tag["Value"] for tag in asked["Tags"]}
        if len(tags | new) > 50:
            raise ServiceError("ResourceLimitExceeded", "A resource can have 50 tags.")
        tags.update(new)
        return self.list_tags(asked)

    def delete_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        for key in asked["TagKeys"]:
            self._tags.get(asked["ResourceArn"], {}).pop(key, None)
        return {}

    def list_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        tags = self._tags.get(asked["ResourceArn"], {})
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def allowed(form: dict[str, list[str]]) -> str:
    """Answer SimulatePrincipalPolicy: all requested actions are allowed."""
    actions = [
        values[0] for name, values in sorted(form.items()) if name.startswith("ActionNames.member")
    ]
    results = "".join(
        f"<member><EvalActionName>{action}</EvalActionName>"
        "<EvalDecision>allowed</EvalDecision></member>"
        for action in actions
    )
    return (
        "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
        f"<EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
    )


def _matches(job: TrainingJob, asked: dict[str, Any]) -> bool:
    status = job.status
    return (
        asked.get("NameContains", "").lower() in job.name.lower()
        and asked.get("StatusEquals", status.primary) == status.primary
        and status.created >= asked.get("CreationTimeAfter", status.created)
        and status.created <= asked.get("CreationTimeBefore", status.created)
        and status.modified >= asked.get("LastModifiedTimeAfter", status.modified)
        and status.modified <= asked.get("LastModifiedTimeBefore", status.modified)
    )


def _summary(job: TrainingJob) -> dict[str, Any]:
    known = job.describe()
    wanted = (
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingEndTime",
        "LastModifiedTime",
        "TrainingJobStatus",
        "SecondaryStatus",
    )
    return {name: known[name] for name in wanted if name in known}
