"""Run a training job, from its request to its artifacts."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from cloud.container import Container
from cloud.image import Image
from cloud.job_status import JobStatus
from cloud.storage import CheckpointSync, Storage, files

S3_ERRORS = (BotoCoreError, Boto3Error, ClientError)
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
TICK = 0.05  # seconds between looks at a running job
SYNC_EVERY = 0.5  # seconds between uploads of checkpoints and of the log


class EndReason(Enum):
    """Why a job is stopped or interrupted; the value is the resulting secondary status."""

    STOP = "Stopped"
    INTERRUPT = "Interrupted"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"


class JobError(Exception):
    """An error caused by the request; its text becomes the job's FailureReason."""


@dataclass
class JobContext:
    """What all jobs share.

    Args:
        folder: Folder of the containers.
        image: Image of the containers.
        storage: S3 with the credentials of the jobs' role.
        logs: boto3 client of CloudWatch Logs.
        environment: Variables of each container: the region, and credentials of the role.
        stop_grace: Seconds between SIGTERM and SIGKILL; the service gives 120.
    """

    folder: Path
    image: Image
    storage: Storage
    logs: Any
    environment: dict[str, str]
    stop_grace: float = 120.0


class TrainingJob:
    """An accepted job; `start` runs it in a thread."""

    def __init__(self, request: dict[str, Any], arn: str, job_context: JobContext) -> None:
        self.request, self.arn, self.job_context = request, arn, job_context
        self.name: str = request["TrainingJobName"]
        self.status = JobStatus(spot=request.get("EnableManagedSpotTraining", False))
        self.containers: list[Container] = []
        self._failed: list[Container] = []
        self._attempts = 0
        self._requested_end: EndReason | None = None
        self._away = 0.0
        self._interrupted = threading.Event()
        self._killed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"job {self.name}", daemon=True)

    # Public interface.

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """Request a stop; return False if the job has ended or is stopping."""
        with self.status.lock:
            if self.status.primary != "InProgress":
                return False
            self.status.primary = "Stopping"
            self._requested_end = EndReason.STOP
            self.status.enter("Stopping")
            return True

    def interrupt(self, away: float) -> None:
        """Interrupt the job, as in managed spot training, and wait until it has no instances.

        Args:
            away: Seconds until the job gets new instances.
        """
        assert self.status.spot, "only spot jobs can be interrupted"
        with self.status.lock:
            now = self.status.secondary
            assert now == "Training", f"{self.name} is not training: {now}"
            self._away = away
            self._interrupted.clear()
            self._requested_end = EndReason.INTERRUPT
        self._interrupted.wait()

    def kill(self) -> None:
        """End the job immediately, as at the end of a test."""
        self._killed.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def folders(self) -> list[Path]:
        """Folder /opt/ml of each host, in the latest attempt."""
        return [container.ml for container in self.containers]

    @property
    def artifacts(self) -> str:
        """Address to which /opt/ml/model is uploaded."""
        packed = self.request["OutputDataConfig"].get("CompressionType") != "NONE"
        return f"{self._output}/{'model.tar.gz' if packed else 'model/'}"

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob."""
        asked = {name: value for name, value in self.request.items() if name != "Tags"}
        known = asked | {"TrainingJobArn": self.arn} | self.status.describe()
        if self.status.is_over:
            known["ModelArtifacts"] = {"S3ModelArtifacts": self.artifacts}
        return known

    # Phases of the job.

    @property
    def _output(self) -> str:
        return f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"

    def _run(self) -> None:
        try:
            while not self._attempt():
                self.status.enter("Starting")
        except (JobError, *S3_ERRORS) as error:
            self.status.end("Failed", reason=f"ClientError: {error}")
        except Exception as error:
            self.status.end("Failed", reason=f"InternalServerError: {error!r}")
            raise  # a defect of the endpoint must not look like a job that failed
        finally:
            self._interrupted.set()

    def _attempt(self) -> bool:
        """Run all phases once; return whether the job is over afterwards."""
        self._attempts += 1
        folder = self.job_context.folder / self.name / str(self._attempts)
        hosts = self.request["ResourceConfig"]["InstanceCount"]
        self.containers = [
            Container(folder / str(index), self.job_context.image, index, hosts)
            for index in range(hosts)
        ]
        try:
            syncs = self._download()
            end_reason = self._find_end_reason() or self._train(syncs)
        finally:
            for container in self.containers:
                container.end()
        self._write_logs()
        for sync in syncs:
            sync.upload()
        if self._killed.is_set():
            self.status.end("Stopped")
            return True
        if end_reason is EndReason.INTERRUPT:
            self._wait_for_instances()
            return False
        self.status.enter("Uploading")
        self._upload()
        self._conclude(end_reason)
        return True

    def _wait_for_instances(self) -> None:
        with self.status.lock:
            self.status.enter("Interrupted")
            if self._requested_end is EndReason.INTERRUPT:  # not stopped meanwhile
                self._requested_end = None
        self._interrupted.set()
        end = time.monotonic() + self._away
        while time.monotonic() < end and not self._find_end_reason() and not self._killed.is_set():
            time.sleep(TICK)

    def _download(self) -> list[CheckpointSync]:
        self.status.enter("Downloading")
        storage, checkpoints = self.job_context.storage, self.request.get("CheckpointConfig")
        syncs = []
        try:
            for container in self.containers:
                for channel in self.request.get("InputDataConfig", []):
                    to = container.ml / "input" / "data" / channel["ChannelName"]
                    storage.download_channel(channel, to, container.index, container.hosts)
                container.configure(self.request)
                if checkpoints:
                    local = checkpoints.get("LocalPath", "/opt/ml/checkpoints")
                    folder = Path(container.remap(local))
                    folder.mkdir(parents=True, exist_ok=True)
                    syncs.append(CheckpointSync(storage, folder, checkpoints["S3Uri"]))
                    syncs[-1].restore()
        except (*S3_ERRORS, ValueError, LookupError) as error:  # a manifest may be invalid
            raise JobError(f"Data download failed: {error}") from error
        return syncs

    def _train(self, syncs: list[CheckpointSync]) -> EndReason | None:
        """Run the containers until they end; return why they were ended early, if so."""
        given = {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.arn}
        if not self.request.get("EnableNetworkIsolation"):
            given |= self.job_context.environment
        self.status.enter("Training")
        began = time.monotonic()
        try:
            for container in self.containers:
                container.start(self.request, given)
        except OSError as error:
            raise JobError(f"Cannot run the entry point: {error}, exit code: 127") from error
        before, end_reason, give_up, synced = self.status.trained, None, math.inf, 0.0
        while not self._is_over(end_reason, give_up):
            self.status.trained = before + time.monotonic() - began
            if end_reason is None and (end_reason := self._find_end_reason()):
                give_up = time.monotonic() + self.job_context.stop_grace
                for container in self.containers:
                    container.terminate()
            if time.monotonic() - synced > SYNC_EVERY:
                synced = time.monotonic()
                self._write_logs()
                for sync in syncs:
                    sync.upload()
            self._killed.wait(TICK)
        self.status.trained = before + time.monotonic() - began
        # read now: containers that are ended later get an exit code too
        self._failed = [container for container in self.containers if container.exit_code]
        return end_reason

    def _is_over(self, end_reason: EndReason | None, give_up: float) -> bool:
        codes = [container.exit_code for container in self.containers]
        failed = end_reason is None and any(codes)  # one failed host ends the whole job
        over = None not in codes or time.monotonic() > give_up
        return over or failed or self._killed.is_set()

    def _find_end_reason(self) -> EndReason | None:
        """Return the reason to stop or interrupt the job, if any."""
        limits = self.request["StoppingCondition"]
        if self._requested_end:
            return self._requested_end
        if self.status.trained > limits["MaxRuntimeInSeconds"]:
            return EndReason.MAX_RUNTIME
        if time.time() - self.status.created > limits.get("MaxWaitTimeInSeconds", math.inf):
            return EndReason.MAX_WAIT
        return None

    def _write_logs(self) -> None:
        logs = self.job_context.logs
        for container in self.containers:
            lines = container.take_lines()
            if lines:
                stream = f"{self.name}/{container.stream}"
                where = {"logGroupName": LOG_GROUP, "logStreamName": stream}
                with suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_stream(**where)
                for first in range(0, len(lines), 1000):
                    logs.put_log_events(**where, logEvents=lines[first : first + 1000])

    def _upload(self) -> None:
        storage = self.job_context.storage
        packed = self.artifacts.endswith(".gz")
        for name, folder in (("model", "model"), ("output", "output/data")):
            folders = [container.ml / folder for container in self.containers]
            if packed and any(files(each) for each in folders):
                storage.upload_archive(folders, f"{self._output}/{name}.tar.gz")
            elif not packed:
                for each in folders:
                    storage.upload_folder(each, f"{self._output}/{name}")

    def _conclude(self, end_reason: EndReason | None) -> None:
        if end_reason:
            self.status.end("Stopped", end_reason.value)
        elif self._failed:
            first = next((each for each in self._failed if each.failure()), self._failed[0])
            text = f"AlgorithmError: {first.failure()[:980]}, exit code: {first.exit_code}"
            self.status.end("Failed", reason=text)
        else:
            self.status.end("Completed")
