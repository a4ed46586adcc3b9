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
from cloud.storage import CheckpointSync, Storage, files

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
TICK = 0.05  # seconds between looks at a running job
SYNC_EVERY = 0.5  # seconds between uploads of checkpoints and of the log
SPOT_PRICE = 0.3  # of the usual one: what is billed of the training time
ENDED = ("Completed", "Failed", "Stopped")
MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Interrupted": "Training job interrupted. A new attempt will be made.",
    "Completed": "Training job completed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job exceeded MaxWaitTimeInSeconds provided",
}


class Wanted(Enum):
    """Why a job does not go on; the value is the secondary status that it leads to."""

    STOP = "Stopped"
    INTERRUPT = "Interrupted"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"


class JobError(Exception):
    """What a job fails with; the text is its FailureReason."""


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
        self.status, self.secondary = "InProgress", "Starting"
        self.transitions: list[dict[str, Any]] = []
        self.reason: str | None = None
        self.created = self.modified = time.time()
        self.began: float | None = None  # of training, at the first attempt
        self.ended: float | None = None
        self.trained = 0.0  # seconds, over the attempts
        self.containers: list[Container] = []
        self._failed: list[Container] = []
        self._attempts = 0
        self._wanted: Wanted | None = None
        self._away = 0.0
        self._interrupted = threading.Event()
        self._killed = threading.Event()
        self._lock = threading.RLock()
        self._enter("Starting")
        self._thread = threading.Thread(target=self._run, name=f"job {self.name}", daemon=True)

    # What others ask of it.

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """Ask it to stop; False if it ended already, or is about to."""
        with self._lock:
            if self.status != "InProgress":
                return False
            self.status = "Stopping"
            self._wanted = Wanted.STOP
            self._enter("Stopping")
            return True

    def interrupt(self, away: float) -> None:
        """Take its instances away, as happens to managed spot training; wait until they are.

        Args:
            away: Seconds until there are others.
        """
        assert self.request.get("EnableManagedSpotTraining"), "only spot instances are taken away"
        with self._lock:
            assert self.secondary == "Training", f"{self.name} is not training: {self.secondary}"
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
        """As DescribeTrainingJob answers, without what is not known yet."""
        with self._lock:
            over = self.status in ENDED
            seconds = math.ceil(self.trained)
            spot = self.request.get("EnableManagedSpotTraining", False)
            billable = math.ceil(seconds * (SPOT_PRICE if spot else 1))
            known = {
                "TrainingJobArn": self.arn,
                "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary,
                "SecondaryStatusTransitions": [dict(each) for each in self.transitions],
                "FailureReason": self.reason,
                "CreationTime": self.created,
                "LastModifiedTime": self.modified,
                "TrainingStartTime": self.began,
                "TrainingEndTime": self.ended,
                "TrainingTimeInSeconds": seconds if over else None,
                "BillableTimeInSeconds": billable if over else None,
                "ModelArtifacts": {"S3ModelArtifacts": self.artifacts} if over else None,
            }
        asked = {name: value for name, value in self.request.items() if name != "Tags"}
        return asked | {name: value for name, value in known.items() if value is not None}

    # What it does.

    @property
    def _output(self) -> str:
        return f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"

    def _enter(self, secondary: str, message: str | None = None) -> None:
        with self._lock:
            now = time.time()
            for last in self.transitions[-1:]:
                last.setdefault("EndTime", now)
            text = MESSAGES.get(secondary, "") if message is None else message
            entered = {"Status": secondary, "StartTime": now, "StatusMessage": text}
            self.transitions.append(entered)
            self.secondary, self.modified = secondary, now

    def _end(self, status: str, secondary: str | None = None, reason: str | None = None) -> None:
        with self._lock:
            self.reason = None if reason is None else reason[:1024]
            self._enter(secondary or status, self.reason)
            self.transitions[-1]["EndTime"] = self.ended = self.modified
            self.status = status

    def _run(self) -> None:
        try:
            while not self._attempt():
                self._enter("Starting")
        except JobError as error:
            self._end("Failed", reason=str(error))
        except Exception as error:
            self._end("Failed", reason=f"InternalServerError: {error!r}")
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
            self._end("Stopped")
            return True
        if wanted is Wanted.INTERRUPT:
            self._wait_for_instances()
            return False
        self._enter("Uploading")
        self._upload()
        self._conclude(wanted)
        return True

    def _wait_for_instances(self) -> None:
        with self._lock:
            self._enter("Interrupted")
            if self._wanted is Wanted.INTERRUPT:  # nobody stopped it meanwhile
                self._wanted = None
        self._interrupted.set()
        end = time.monotonic() + self._away
        while time.monotonic() < end and not self._why_not() and not self._killed.is_set():
            time.sleep(TICK)

    def _download(self) -> list[CheckpointSync]:
        self._enter("Downloading")
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
        except (BotoCoreError, Boto3Error, ClientError, ValueError, LookupError) as error:
            raise JobError(f"ClientError: Data download failed: {error}") from error
        return syncs

    def _train(self, syncs: list[CheckpointSync]) -> Wanted | None:
        """Run the containers until they end or are ended; why they were."""
        given = {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.arn}
        if not self.request.get("EnableNetworkIsolation"):
            given |= self.around.environment
        self._enter("Training")
        began = time.time()
        self.began = self.began or began
        try:
            for container in self.containers:
                container.start(self.request, given)
        except OSError as error:
            raise JobError(
                f"ClientError: Cannot run the entry point: {error}, exit code: 127"
            ) from None
        before, wanted, give_up, synced = self.trained, None, math.inf, 0.0
        while not self._is_over(wanted, give_up):
            self.trained = before + time.time() - began
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
        self.trained = before + time.time() - began
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
        if self.trained > limits["MaxRuntimeInSeconds"]:
            return Wanted.MAX_RUNTIME
        if time.time() - self.created > limits.get("MaxWaitTimeInSeconds", math.inf):
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
        try:
            for name, folder in (("model", "model"), ("output", "output/data")):
                folders = [container.ml / folder for container in self.containers]
                if packed and any(files(each) for each in folders):
                    storage.upload_archive(folders, f"{self._output}/{name}.tar.gz")
                elif not packed:
                    for each in folders:
                        storage.upload_folder(each, f"{self._output}/{name}")
        except (BotoCoreError, Boto3Error, ClientError) as error:
            raise JobError(f"ClientError: Artifact upload failed: {error}") from error

    def _conclude(self, wanted: Wanted | None) -> None:
        if wanted:
            self._end("Stopped", wanted.value)
        elif self._failed:
            first = next((each for each in self._failed if each.failure()), self._failed[0])
            text = f"AlgorithmError: {first.failure()[:980]}, exit code: {first.exit_code}"
            self._end("Failed", reason=text)
        else:
            self._end("Completed")
