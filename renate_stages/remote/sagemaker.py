"""Run training jobs in Amazon SageMaker; the only module that imports its SDK.

The SDK's `ModelTrainer` submits a job; boto3, with its retries configured, does the rest: states,
logs, stopping. We pass no SageMaker hyperparameters, because SageMaker would parse and quote them;
a job reads a file instead.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from renate_stages.errors import RemoteServiceError, RenateStagesError
from renate_stages.params.remote import RemoteParams
from renate_stages.remote import start
from renate_stages.remote.backend import JobState, Status
from renate_stages.remote.job import CHECKPOINTS, CONFIGURATION, MANIFESTS, Job

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
LATEST = 5  # number of jobs with the same name to look at
STATUS: Mapping[str, Status] = {
    "Completed": "completed",
    "Failed": "failed",
    "Stopped": "stopped",
}
RETRIES = {
    "AWS_RETRY_MODE": "standard",
    "AWS_MAX_ATTEMPTS": "6",
}  # defaults, unless the user sets them
CURES = {
    "AccessDeniedException": "give your AWS identity the permission named above; docs/sagemaker.md "
    "lists all that are needed",
    "AccessDenied": "give your AWS identity the permission named above; docs/sagemaker.md lists "
    "all that are needed",
    "ExpiredTokenException": "renew your AWS credentials, for example with `aws sso login`",
    "ExpiredToken": "renew your AWS credentials, for example with `aws sso login`",
    "ResourceLimitExceeded": "ask for a higher quota in the Service Quotas console, or set "
    "remote.sagemaker.instance_type to one that your account has",
    "UnrecognizedClientException": "check your AWS credentials: the service does not know them",
}
ROLE_ERROR = "RoleValidationError"  # compared by name, because its module takes seconds to import
ANY_CURE = "check `remote.sagemaker` in params.yaml, and run `renate-stages remote check`"

T = TypeVar("T")


class SageMaker:
    """Runs jobs in SageMaker; see `Backend`.

    Args:
        remote: Block `remote` of the project's parameters.

    Raises:
        RemoteServiceError: If no region or no credentials are set.
    """

    service = "SageMaker"

    def __init__(self, remote: RemoteParams) -> None:
        import boto3

        for name, value in RETRIES.items():
            os.environ.setdefault(name, value)
        self.remote = remote
        self.asked = remote.sagemaker
        self.session = boto3.Session(region_name=self.asked.region)
        self._jobs = self._answer("a client", lambda: self.session.client("sagemaker"))
        self._logs = self._answer("a client", lambda: self.session.client("logs"))

    def submit(self, name: str, url: str, folder: str, digest: str) -> str:
        """Start a job with the SDK; see `Backend.submit`."""
        with _quiet():
            try:
                return self._answer("the job", lambda: self._train(name, url, folder, digest))
            except (ConnectionError, RenateStagesError):
                # The request may have succeeded although its answer was lost, or it was sent twice.
                for found in self.find(name):
                    if found.status == "running":
                        return found.name
                raise

    def find(self, name: str) -> list[JobState]:
        """Return the jobs whose names start with `name`, the latest first."""
        found = self._answer(
            "a list of jobs",
            lambda: self._jobs.list_training_jobs(
                NameContains=name,
                SortBy="CreationTime",
                SortOrder="Descending",
                MaxResults=LATEST,
            ),
        )
        names = [each["TrainingJobName"] for each in found["TrainingJobSummaries"]]
        return [self.state(each) for each in names if each.startswith(f"{name}-")]

    def state(self, job: str) -> JobState:
        """Return the state of a job."""
        found = self._answer(
            f"the job {job}", lambda: self._jobs.describe_training_job(TrainingJobName=job)
        )
        phase = found.get("SecondaryStatus") or found["TrainingJobStatus"]
        reason = found.get("FailureReason", "")
        if phase in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded"):
            name = "max_runtime" if phase.startswith("MaxRuntime") else "max_wait"
            reason = f"it took longer than remote.sagemaker.{name} allows"
        return JobState(
            name=job,
            status=STATUS.get(found["TrainingJobStatus"], "running"),
            phase=phase,
            reason=reason,
            seconds=found.get("TrainingTimeInSeconds"),
            billable=found.get("BillableTimeInSeconds"),
        )

    def log(self, job: str) -> CloudWatchLog:
        """Return the log of a job's first machine."""
        return CloudWatchLog(self._answer, self._logs, job)

    def log_address(self, job: str) -> str:
        """Return a text that tells the user where to find the log of a job."""
        return f"CloudWatch, group {LOG_GROUP}, stream {job}/algo-1-..."

    def stop(self, job: str) -> None:
        """Stop a job, unless it has already ended."""
        if self.state(job).status == "running":
            self._answer("to stop", lambda: self._jobs.stop_training_job(TrainingJobName=job))

    def identity(self) -> str:
        """Return the ARN of the current AWS identity."""
        client = self._answer("a client", lambda: self.session.client("sts"))
        return self._answer("our identity", client.get_caller_identity)["Arn"]

    def quota(self) -> str | None:
        """Return the quota of instances of the configured type; None if it is unknown."""
        wanted = f"{self.asked.instance_type} for {'spot ' * self.asked.spot}training job usage"
        client = self._answer("a client", lambda: self.session.client("service-quotas"))
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
        try:
            found = self._answer("quotas", lambda: [q for page in pages for q in page["Quotas"]])
        except RemoteServiceError:  # a missing permission, which nothing else needs
            return None
        return next((f"{q['Value']:g}" for q in found if q["QuotaName"] == wanted), None)

    def role(self) -> str:
        """Return the ARN of the role that jobs run as; the SDK checks it as far as IAM permits."""
        with _quiet():
            from sagemaker.core.helper.session_helper import Session
            from sagemaker.train.defaults import TrainDefaults

            session = Session(boto_session=self.session, sagemaker_config=_configuration())
            return self._answer(
                "the role", lambda: TrainDefaults.get_role(self.asked.role, session)
            )

    # -- submitting -------------------------------------------------------------------------------

    def _train(self, name: str, url: str, folder: str, digest: str) -> str:
        from sagemaker.core import shapes
        from sagemaker.core.helper.session_helper import Session
        from sagemaker.core.training import configs
        from sagemaker.train import ModelTrainer

        asked = self.asked
        own = f"{url}/{folder.rstrip('/')}"
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        session = Session(
            boto_session=self.session,
            default_bucket=bucket,
            default_bucket_prefix=prefix or None,
            sagemaker_config=_configuration(),
        )
        limits = {"max_runtime_in_seconds": int(asked.max_runtime)}
        if asked.spot:
            limits["max_wait_time_in_seconds"] = int(asked.max_wait or 2 * asked.max_runtime)
        nodes = asked.instance_count if name.startswith("renate-train-") else 1
        optional: dict[str, Any] = {}
        if asked.keep_alive is not None:
            optional["keep_alive_period_in_seconds"] = int(asked.keep_alive)
        if asked.kms_key is not None:
            optional["volume_kms_key_id"] = asked.kms_key
        with tempfile.TemporaryDirectory() as source:
            shutil.copy(start.__file__, source)
            trainer = ModelTrainer(
                sagemaker_session=session,
                role=asked.role,
                base_job_name=name,
                input_s3_key_prefix="submitted",
                training_image=asked.image_uri,
                source_code=configs.SourceCode(
                    source_dir=source, command=f"python3 {Path(start.__file__).name}"
                ),
                compute=configs.Compute(
                    instance_type=asked.instance_type,
                    instance_count=nodes,
                    volume_size_in_gb=asked.volume_gb,
                    enable_managed_spot_training=asked.spot or None,
                    **optional,
                ),
                networking=configs.Networking(
                    subnets=asked.subnets, security_group_ids=asked.security_groups
                )
                if asked.subnets
                else None,
                stopping_condition=configs.StoppingCondition(**limits),
                output_data_config=configs.OutputDataConfig(
                    s3_output_path=f"{url}/submitted",
                    **({"kms_key_id": asked.kms_key} if asked.kms_key else {}),
                ),
                checkpoint_config=configs.CheckpointConfig(s3_uri=f"{own}/{CHECKPOINTS}"),
                environment={**asked.environment, start.DIGEST: digest},
                tags=[shapes.Tag(key=key, value=value) for key, value in asked.tags.items()]
                or None,
            )
            channels = [
                configs.InputData(
                    channel_name=CONFIGURATION,
                    data_source=f"{own}/{Job.description_in(digest).removesuffix(start.DESCRIPTION)}",
                ),
                configs.InputData(
                    channel_name=MANIFESTS,
                    data_source=shapes.S3DataSource(
                        s3_data_type="ManifestFile",
                        s3_uri=f"{own}/{Job.manifest_in(digest)}",
                        s3_data_distribution_type="FullyReplicated",
                    ),
                ),
            ]
            trainer.train(input_data_config=channels, wait=False, logs=False)
        job = trainer._latest_training_job  # the only way to get the job's name
        assert job is not None
        return str(job.training_job_name)

    def _answer(self, asked: str, ask: Callable[[], T]) -> T:
        """Return the answer of a service, or raise an error that a user can act on.

        Raises:
            ConnectionError: If the service does not answer.
            RemoteServiceError: If the service refuses the request.
        """
        from botocore import exceptions as aws

        try:
            return ask()
        except aws.ClientError as error:
            details = error.response.get("Error", {})
            code, message = str(details.get("Code", "")), str(details.get("Message", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status >= 500 or code in ("ThrottlingException", "Throttling", "SlowDown"):
                raise ConnectionError(f"{code}: {message}") from error
            cure = CURES.get(code, ANY_CURE)
            raise RemoteServiceError("AWS", asked, f"{code}: {message}", cure) from error
        except (aws.NoCredentialsError, aws.NoRegionError, aws.PartialCredentialsError) as error:
            cure = (
                "set AWS_PROFILE or run `aws configure`; set the region as remote.sagemaker.region"
            )
            raise RemoteServiceError("AWS", asked, str(error), cure) from error
        except (aws.HTTPClientError, aws.ConnectionError) as error:
            raise ConnectionError(str(error)) from error
        except Exception as error:
            # The SDK raises these if the role does not exist or lacks permissions.
            if not isinstance(error, ValueError) and type(error).__name__ != ROLE_ERROR:
                raise
            raise RemoteServiceError("SageMaker's SDK", asked, str(error), ANY_CURE) from error


class CloudWatchLog:
    """Reads the new lines in the log of a job's first machine.

    Args:
        answer: Calls a service; `SageMaker._answer`.
        client: Client of CloudWatch Logs.
        job: Name of the job.
    """

    def __init__(self, answer: Callable[..., Any], client: Any, job: str) -> None:
        self._answer = answer
        self._client = client
        self._job = job
        self._places: dict[str, str | None] = {}  # token by stream; a job has one stream per start

    def new_lines(self) -> list[str]:
        """Return the lines since the last call; none while there is no stream."""
        for stream in self._streams():
            self._places.setdefault(stream, None)
        return [line for stream in self._places for line in self._read(stream)]

    def _streams(self) -> list[str]:
        begin = f"{self._job}/algo-1-"
        asked = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": begin}
        try:
            found = self._answer("the log", lambda: self._client.describe_log_streams(**asked))
        except RemoteServiceError as error:
            if "ResourceNotFoundException" in str(error):  # no job has ever logged here
                return []
            raise
        return sorted(each["logStreamName"] for each in found["logStreams"])

    def _read(self, stream: str) -> Iterator[str]:
        asked = {"logGroupName": LOG_GROUP, "logStreamName": stream, "startFromHead": True}
        while True:
            place = self._places[stream]
            more = {"nextToken": place} if place else {}
            page = self._answer("the log", lambda m=more: self._client.get_log_events(**asked, **m))
            self._places[stream] = page["nextForwardToken"]
            yield from (event["message"].rstrip("\n") for event in page["events"])
            if not page["events"] or page["nextForwardToken"] == place:
                return


def _configuration() -> dict[str, Any]:
    """Return the user's defaults for the SDK, with telemetry switched off."""
    from sagemaker.core.config.config import load_sagemaker_config

    found = dict(load_sagemaker_config() or {})
    found.setdefault("SchemaVersion", "1.0")
    place = found
    for name in ("SageMaker", "PythonSDK", "Modules"):
        inner = dict(place.get(name) or {})
        place[name] = inner
        place = inner
    place["TelemetryOptOut"] = True
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the SDK's log messages and deprecation warnings."""
    logger = logging.getLogger("sagemaker")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
