"""The simulated AWS services, and the interface that tests use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from moto.server import DomainDispatcherApplication, create_backend_app

from cloud import processes
from cloud.entrance import REGION, Endpoint
from cloud.faults import Fault, Faults, Kind
from cloud.image import Image
from cloud.job_status import ENDED
from cloud.log_streams import with_stream_names
from cloud.protocol import Application, Environ, Request, ServiceError, StartResponse
from cloud.storage import Storage
from cloud.traffic import DOWNLOADS, UPLOADS, Call, Traffic
from cloud.training_api import TrainingApi, allowed
from cloud.training_jobs import LOG_GROUP, JobContext

ACCOUNT = "123456789012"  # of moto
ROLE = "renate-training"
QUOTAS = [{"QuotaName": "ml.m5.xlarge for training job usage", "Value": 4.0}]
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


class Cloud:
    """Simulated AWS for one test process, from `start` to `stop`.

    It has two endpoints. The client under test uses the first, which injects the requested faults
    and counts calls. Jobs and the tests' own checks use the second, without faults or counting.

    Attributes:
        client_environment: Variables for the client under test.
        role: ARN of a role that SageMaker may assume.
        jobs: Training jobs by name.
    """

    def __init__(self) -> None:
        self.defects: list[str] = []  # of the services themselves; `stop` reports them
        services = self._services(DomainDispatcherApplication(create_backend_app))
        self._traffic = Traffic(services)
        self._faults = Faults(self._traffic)
        self._outside = Endpoint(self._faults, "client")
        self._inside = Endpoint(services, "role")
        self._inner: dict[str, Any] = {}
        self._ends = ExitStack()
        self.role = f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"

    # Start and stop.

    def start(self) -> Self:
        """Start serving."""
        with ExitStack() as ends:  # also if a step fails
            ends.callback(self._report_defects)
            folder = Path(tempfile.mkdtemp(prefix="cloud-"))  # short: for socket paths
            ends.callback(shutil.rmtree, folder, ignore_errors=True)
            (folder / "jobs").mkdir()
            # This process ends all jobs if the tests die, because its input ends then.
            command = [sys.executable, "-IS", processes.__file__, str(folder)]
            guard = subprocess.Popen(command, stdin=subprocess.PIPE)
            ends.callback(guard.communicate)
            self._inside.open()
            ends.callback(self._inside.close)
            ends.callback(self._inside.post, "/moto-api/reset")
            self._prepare(folder)
            ends.callback(self.image.end)
            ends.callback(self._end_all_jobs)
            self._outside.open()
            ends.callback(self._outside.close)
            self.client_environment = self._outside.variables | _client_settings(folder)
            self._ends = ends.pop_all()
        return self

    def stop(self) -> None:
        """End all jobs and the services, and forget everything."""
        self._ends.close()

    def _prepare(self, folder: Path) -> None:
        self.image = Image(folder / "jobs" / "image")  # its processes end with those of jobs
        job_context = JobContext(
            folder / "jobs",
            self.image,
            Storage(self.inside("s3")),
            self.inside("logs"),
            self._inside.variables,
        )
        self.api = TrainingApi(job_context, f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/")
        self.jobs = self.api.jobs
        self.inside("logs").create_log_group(logGroupName=LOG_GROUP)
        self.inside("iam").create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))

    def _end_all_jobs(self) -> None:
        for job in list(self.jobs.values()):
            job.kill()

    def _report_defects(self) -> None:
        assert not self.defects, "\n".join(self.defects)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _services(self, moto: Application) -> Application:
        """Answer requests about training jobs here, and pass all others to moto."""

        def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            request = Request.read(environ)
            try:
                if request.name == "iam:SimulatePrincipalPolicy":
                    return request.answer_xml(start_response, allowed(request.form))
                operation = self.api.operations.get(request.operation)
                if request.service == "sagemaker" and operation:
                    return request.answer(start_response, operation(request.parameters))
                if request.name == "servicequotas:ListServiceQuotas":  # which moto lacks
                    return request.answer(start_response, {"Quotas": QUOTAS})
                if request.name == "logs:FilterLogEvents":
                    request.replace(with_stream_names(request.parameters, self.inside("logs")))
                return moto(environ, start_response)
            except ServiceError as error:
                return request.refuse(start_response, error)
            except ConnectionError:  # the client is gone
                raise
            except Exception:
                self.defects.append(f"{request.name}: {traceback.format_exc()}")
                raise

        return answer

    # Clients.

    def client(self, service: str, **config: Any) -> Any:
        """Create a boto3 client with faults and counted calls, like the client under test.

        Args:
            service: Name of the service, such as `sagemaker`.
            config: Arguments of `botocore.config.Config`.
        """
        return self._outside.client(service, **config)

    def inside(self, service: str) -> Any:
        """Create a boto3 client for a test's own checks, without faults and counting."""
        if service not in self._inner:
            self._inner[service] = self._inside.client(service)
        return self._inner[service]

    # Jobs.

    @property
    def requests(self) -> dict[str, dict[str, Any]]:
        """Requests of CreateTrainingJob, by the name of the job."""
        return {name: job.request for name, job in self.jobs.items()}

    def wait(self, name: str, *statuses: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until a job has one of the secondary statuses, or has ended.

        Returns:
            The answer of DescribeTrainingJob.
        """
        end = time.monotonic() + timeout
        while True:
            found = self.jobs[name].describe()
            if found["SecondaryStatus"] in statuses or found["TrainingJobStatus"] in ENDED:
                return found
            assert time.monotonic() < end, f"{name} is still {found['SecondaryStatus']}"
            time.sleep(0.02)

    def log(self, name: str) -> str:
        """Return the log of a job, of all hosts, in order of time."""
        pages = self.inside("logs").get_paginator("filter_log_events")
        found = pages.paginate(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/")
        return "\n".join(event["message"] for page in found for event in page["events"])

    def interrupt(self, name: str, away: float = 0.0) -> None:
        """Interrupt a spot job, which then starts again from its checkpoints.

        Returns when the job has lost its instances.

        Args:
            name: Name of a job whose secondary status is `Training`.
            away: Seconds until the job gets new instances.
        """
        self.jobs[name].interrupt(away)

    @property
    def stop_grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL of a job; 120 in the real service."""
        return self.api.job_context.stop_grace

    @stop_grace.setter
    def stop_grace(self, seconds: float) -> None:
        self.api.job_context.stop_grace = seconds

    def end_jobs(self, bucket: str) -> None:
        """End the jobs that write to a bucket, at once."""
        for job in list(self.jobs.values()):
            if job.request["OutputDataConfig"]["S3OutputPath"].startswith(f"s3://{bucket}"):
                job.kill()

    # Faults. `operation` is `CreateTrainingJob`, `sagemaker:CreateTrainingJob` or a pattern such as
    # `s3:*`; `times` is the number of requests that get the fault (None: all); `during` is its
    # duration in seconds (None: until the test ends).

    def throttle(self, operation: str, times: int | None = 1, during: float | None = None) -> Fault:
        """Answer that there are too many requests: ThrottlingException, or SlowDown of S3."""
        return self._fault("throttle", operation, times, during)

    def refuse(
        self,
        operation: str,
        code: str,
        message: str,
        times: int | None = 1,
        during: float | None = None,
        status: int = 400,
    ) -> Fault:
        """Answer with an error, such as `ResourceLimitExceeded`."""
        error = ServiceError(code, message, status)
        return self._fault("refuse", operation, times, during, error=error)

    def fail(self, operation: str, times: int | None = 1, during: float | None = None) -> Fault:
        """Answer with HTTP 500."""
        return self._fault("error", operation, times, during)

    def drop(self, operation: str, times: int | None = 1, during: float | None = None) -> Fault:
        """Close the connection without executing the request."""
        return self._fault("drop", operation, times, during)

    def lose_answer(
        self, operation: str, times: int | None = 1, during: float | None = None
    ) -> Fault:
        """Execute the request, and close the connection instead of answering."""
        return self._fault("lose", operation, times, during)

    def delay(
        self,
        operation: str,
        seconds: float,
        times: int | None = 1,
        during: float | None = None,
    ) -> Fault:
        """Answer after some seconds."""
        return self._fault("delay", operation, times, during, seconds=seconds)

    def before(self, operation: str, action: Callable[[], object]) -> Fault:
        """Call a function before the next request is answered, as a concurrent client might act."""
        return self._fault("act", operation, 1, None, action=action)

    def _fault(
        self, kind: Kind, operation: str, times: int | None, during: float | None, **of: Any
    ) -> Fault:
        until = None if during is None else time.monotonic() + during
        return self._faults.add(Fault(kind, operation, times, until, **of))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Refuse all connections of clients in this block; jobs keep running."""
        self._outside.close()
        try:
            yield
        finally:
            self._outside.open()

    # Calls and transferred bytes.

    def mark(self) -> int:
        """Return the current position in the list of calls."""
        return len(self._traffic.calls)

    def calls(self, since: int = 0) -> list[Call]:
        """Return the answered calls of clients, without those that a fault blocked."""
        return self._traffic.calls[since:]

    def uploads(self, since: int = 0, under: str = "") -> dict[str, int]:
        """Return the bytes that clients uploaded of each object.

        Args:
            since: Position returned by `mark`.
            under: `s3://bucket/prefix/`; count only objects below it, by their relative names.
        """
        return self._traffic.sizes(UPLOADS, since, under)

    def downloads(self, since: int = 0, under: str = "") -> dict[str, int]:
        """Return the bytes that clients downloaded of each object; arguments as of `uploads`."""
        return self._traffic.sizes(DOWNLOADS, since, under)


def _client_settings(folder: Path) -> dict[str, str]:
    """Keep a developer's own configuration and proxy, and telemetry, out of the tests."""
    sdk = folder / "sagemaker.yaml"
    sdk.write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    empty = folder / "aws"  # a file: dvc-s3 refuses /dev/null
    empty.touch()
    return {
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "AWS_CONFIG_FILE": str(empty),
        "AWS_SHARED_CREDENTIALS_FILE": str(empty),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(sdk),
    }
