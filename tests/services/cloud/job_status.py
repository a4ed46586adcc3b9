"""The status of a training job, as DescribeTrainingJob returns it."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

ENDED = ("Completed", "Failed", "Stopped")
SPOT_PRICE = 0.3  # share of the training time that is billed
REASON_LENGTH = 1024  # longest FailureReason
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


class JobStatus:
    """The statuses of a job, with their times; any thread may read and change them.

    Args:
        spot: Whether the instances are spot instances, which cost less.
    """

    def __init__(self, spot: bool) -> None:
        self.spot = spot
        self.primary = "InProgress"
        self.reason: str | None = None
        self.created = time.time()
        self.began: float | None = None  # start of the first attempt's training
        self.ended: float | None = None
        self.trained = 0.0  # seconds, summed over the attempts
        self.lock = threading.RLock()
        self._transitions: list[dict[str, Any]] = []
        self.enter("Starting")

    @property
    def secondary(self) -> str:
        return self._transitions[-1]["Status"]

    @property
    def modified(self) -> float:
        return self._transitions[-1]["StartTime"]

    @property
    def is_over(self) -> bool:
        return self.primary in ENDED

    def enter(self, secondary: str, message: str | None = None) -> None:
        """Begin a phase."""
        with self.lock:
            now = time.time()
            for last in self._transitions[-1:]:
                last["EndTime"] = now
            text = MESSAGES.get(secondary, "") if message is None else message
            entered = {"Status": secondary, "StartTime": now, "StatusMessage": text}
            self._transitions.append(entered)
            if secondary == "Training" and self.began is None:
                self.began = now

    def end(self, primary: str, secondary: str | None = None, reason: str | None = None) -> None:
        """Record the end of the job, with a reason if it failed."""
        with self.lock:
            self.reason = None if reason is None else reason[:REASON_LENGTH]
            self.enter(secondary or primary, self.reason)
            self._transitions[-1]["EndTime"] = self.ended = self.modified
            self.primary = primary

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob, without values that are not known yet."""
        with self.lock:
            known = {
                "TrainingJobStatus": self.primary,
                "SecondaryStatus": self.secondary,
                "SecondaryStatusTransitions": [dict(each) for each in self._transitions],
                "FailureReason": self.reason,
                "CreationTime": self.created,
                "LastModifiedTime": self.modified,
                "TrainingStartTime": self.began,
                "TrainingEndTime": self.ended,
            }
            if self.is_over:
                seconds = math.ceil(self.trained)
                known["TrainingTimeInSeconds"] = seconds
                known["BillableTimeInSeconds"] = math.ceil(
                    seconds * (SPOT_PRICE if self.spot else 1)
                )
        return {name: value for name, value in known.items() if value is not None}
