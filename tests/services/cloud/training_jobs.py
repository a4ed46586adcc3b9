"""The life of a training job, from its request to its artifacts."""

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


class Wanted(Enum):
    """Why a job does not go on; the value is the secondary status that it leads to."""

    STOP = "Stopped"
    INTERRUPT = "Interrupted"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"


class JobError(Exception):
    """What a request is to blame for; the text is in its job's FailureReason."""


@dataclass
class Surroundings:
    """What all jobs share.

    Args:
        folder: Where their containers are.
        image: What containers start from.
        storage: S3 as their roles use it.
        logs: Client of CloudWatch Logs.
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
    """A job that was accepted; `start` lets it run in a thread."""

    def __init__(self, request: dict[str, Any], arn: str, around: Surroundings) -> None:
        self.request, self.arn, self.around = request, arn, around
        self.name: str = request["TrainingJobName"]
        self.status = JobStatus(spot=request.get("EnableManagedSpotTraining", False))
        self.containers: list[Container] = []
        self._failed: list[Container] = []
        self._attempts = 0
        self._wanted: Wanted | None = None
        self._away = 0.0
        self._interrupted = threading.Event()
        self._killed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"job {self.name}", daemon=True)

    # What others ask of it.

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """Ask it to stop; False if it ended already, or is about to."""
        with self.status.lock:
            if self.status.primary != "InProgress":
                return False
            self.status.primary = "Stopping"
            self._wanted = Wanted.STOP
            self.status.enter("Stopping")
            return True

    def interrupt(self, away: float) -> None:
        """Take its instances away, as happens to managed spot training; wait until they are.

        Args:
            away: Seconds until there are others.
        """
        assert self.status.spot, "only spot instances are taken away"
        with self.status.lock:
            now = self.status.secondary
            assert now == "Training", f"{self.name} is not training: {now}"
            self._away = away
            self._interrupted.clear()
            self._wanted = Wanted.INTERRUPT
        self._interrupted.wait()

    def kill(self) -> None:
        """End it at once, as at the end of a test."""
        self._killed.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def folders(self) -> list[Path]:
        """/opt/ml of each host, of the latest attempt."""
        return [container.ml for container in self.containers]

    @property
    def artifacts(self) -> str:
        """Address of what is made of /opt/ml/model."""
        packed = self.request["OutputDataConfig"].get("CompressionType") != "NONE"
        return f"{self._output}/{'model.tar.gz' if packed else 'model/'}"

    def describe(self) -> dict[str, Any]:
        """As DescribeTrainingJob answers."""
        asked = {name: value for name, value in self.request.items() if name != "Tags"}
        known = asked | {"TrainingJobArn": self.arn} | self.status.describe()
        if self.status.is_over:
            known["ModelArtifacts"] = {"S3ModelArtifacts": self.artifacts}
        return known

    # What it does.

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
        """Go through the phases once; whether the job is over afterwards."""
        self._attempts += 1
        folder = self.around.folder / self.name / str(self._attempts)
        hosts = self.request["ResourceConfig"]["InstanceCount"]
        self.containers = [
            Container(folder / str(index), self.around.image, index, hosts)
            for index in range(hosts)
        ]
        try:
            syncs = self._download()
            wanted = self._why_not() or self._train(syncs)
        finally:
            for container in self.containers:
                container.end()
        self._write_logs()
        for sync in syncs:
            sync.upload()
        if self._killed.is_set():
            self.status.end("Stopped")
            return True
        if wanted is Wanted.INTERRUPT:
            self._wait_for_instances()
            return False
        self.status.enter("Uploading")
        self._upload()
        self._conclude(wanted)
        return True

    def _wait_for_instances(self) -> None:
        with self.status.lock:
            self.status.enter("Interrupted")
            if self._wanted is Wanted.INTERRUPT:  # nobody stopped it meanwhile
                self._wanted = None
        self._interrupted.set()
        end = time.monotonic() + self._away
        while time.monotonic() < end and not self._why_not() and not self._killed.is_set():
            time.sleep(TICK)

    def _download(self) -> list[CheckpointSync]:
        self.status.enter("Downloading")
        storage, checkpoints = self.around.storage, self.request.get("CheckpointConfig")
        syncs = []
        try:
            for container in self.containers:
                for channel in self.request.get("InputDataConfig", []):
                    to = container.ml / "input" / "data" / channel["ChannelName"]
                    storage.download_channel(channel, to, container.index, container.hosts)
                container.configure(self.request)
                if checkpoints:
                    local = checkpoints.get("LocalPath", "/opt/ml/checkpoints")
                    folder = Path(container.here(local))
                    folder.mkdir(parents=True, exist_ok=True)
                    syncs.append(CheckpointSync(storage, folder, checkpoints["S3Uri"]))
                    syncs[-1].restore()
        except (*S3_ERRORS, ValueError, LookupError) as error:  # a manifest may hold anything
            raise JobError(f"Data download failed: {error}") from error
        return syncs

    def _train(self, syncs: list[CheckpointSync]) -> Wanted | None:
        """Run the containers until they end or are ended; why they were."""
        given = {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.arn}
        if not self.request.get("EnableNetworkIsolation"):
            given |= self.around.environment
        self.status.enter("Training")
        began = time.monotonic()
        try:
            for container in self.containers:
                container.start(self.request, given)
        except OSError as error:
            raise JobError(f"Cannot run the entry point: {error}, exit code: 127") from error
        before, wanted, give_up, synced = self.status.trained, None, math.inf, 0.0
        while not self._is_over(wanted, give_up):
            self.status.trained = before + time.monotonic() - began
            if wanted is None and (wanted := self._why_not()):
                give_up = time.monotonic() + self.around.stop_grace
                for container in self.containers:
                    container.terminate()
            if time.monotonic() - synced > SYNC_EVERY:
                synced = time.monotonic()
                self._write_logs()
                for sync in syncs:
                    sync.upload()
            self._killed.wait(TICK)
        self.status.trained = before + time.monotonic() - began
        # before those that go on are ended, and then have a code too
        self._failed = [container for container in self.containers if container.exit_code]
        return wanted

    def _is_over(self, wanted: Wanted | None, give_up: float) -> bool:
        codes = [container.exit_code for container in self.containers]
        failed = wanted is None and any(codes)  # one host that fails ends the job of all
        over = None not in codes or time.monotonic() > give_up
        return over or failed or self._killed.is_set()

    def _why_not(self) -> Wanted | None:
        """Why it should not go on."""
        limits = self.request["StoppingCondition"]
        if self._wanted:
            return self._wanted
        if self.status.trained > limits["MaxRuntimeInSeconds"]:
            return Wanted.MAX_RUNTIME
        if time.time() - self.status.created > limits.get("MaxWaitTimeInSeconds", math.inf):
            return Wanted.MAX_WAIT
        return None

    def _write_logs(self) -> None:
        logs = self.around.logs
        for container in self.containers:
            said = container.said()
            if said:
                stream = f"{self.name}/{container.stream}"
                where = {"logGroupName": LOG_GROUP, "logStreamName": stream}
                with suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_stream(**where)
                for first in range(0, len(said), 1000):
                    logs.put_log_events(**where, logEvents=said[first : first + 1000])

    def _upload(self) -> None:
        storage = self.around.storage
        packed = self.artifacts.endswith(".gz")
        for name, folder in (("model", "model"), ("output", "output/data")):
            folders = [container.ml / folder for container in self.containers]
            if packed and any(files(each) for each in folders):
                storage.upload_archive(folders, f"{self._output}/{name}.tar.gz")
            elif not packed:
                for each in folders:
                    storage.upload_folder(each, f"{self._output}/{name}")

    def _conclude(self, wanted: Wanted | None) -> None:
        if wanted:
            self.status.end("Stopped", wanted.value)
        elif self._failed:
            first = next((each for each in self._failed if each.failure()), self._failed[0])
            text = f"AlgorithmError: {first.failure()[:980]}, exit code: {first.exit_code}"
            self.status.end("Failed", reason=text)
        else:
            self.status.end("Completed")
