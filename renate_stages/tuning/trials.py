"""A Syne Tune backend that runs each trial in a separate process."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from syne_tune.backend.trial_backend import TrialBackend
from syne_tune.backend.trial_status import Status, Trial, TrialResult
from syne_tune.constants import ST_WORKER_TIMESTAMP

from renate_stages import files
from renate_stages.errors import TrialMistakeError
from renate_stages.tuning.channel import SearchChannel
from renate_stages.tuning.processes import KILLED, Processes
from renate_stages.tuning.trial_folder import Report, TrialFolder

LOOK = 0.5  # maximum seconds between checks of the time limit
SILENCE = 1800.0  # seconds without a sign of life after which a trial has failed
SILENCE_VARIABLE = "RENATE_STAGES_TRIAL_SECONDS"


@dataclass
class _Process:
    """The process of a running trial."""

    number: int
    channel: SearchChannel
    device: str
    waits: bool = False  # whether it waits for the answer to a report
    mistake: str = ""  # message of a user's mistake that ended it

    def fileno(self) -> int:
        return self.channel.fileno()


SYNE_TUNE = {
    "running": Status.in_progress,
    "paused": Status.paused,
    "stopped": Status.stopped,
    "completed": Status.completed,
    "failed": Status.failed,
}


class Trials(TrialBackend):
    """Runs trials, each in its own process and folder.

    A trial reports after each epoch and waits until the scheduler has seen the report. So a search
    with one worker is reproducible, and a trial never runs ahead of a decision. A trial that dies or
    hangs has failed, and the search goes on.

    Args:
        folder: Folder of this search.
        processes: Starts the processes.
        complete: Turns a sample of the scheduler into a complete configuration.
        devices: CUDA devices to distribute among trials; empty: do not set a device.
        take_files: Function that gets the hashes of the user's files that a trial used, and may
            raise an error.
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        complete: Callable[[Mapping[str, Any]], dict[str, Any]],
        devices: Sequence[str] = (),
        take_files: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.processes = processes
        self.complete = complete
        self.devices = devices
        self.take_files = take_files
        self.records: dict[int, TrialFolder] = {}
        self.silence = float(os.environ.get(SILENCE_VARIABLE, SILENCE))
        self._running: dict[int, _Process] = {}  # by trial
        self._codes: dict[int, int] = {}  # exit codes, by number of the process
        self._started = 0

    # -- methods that Syne Tune's loop calls ------------------------------------------------------

    def _schedule(self, trial_id: int, config: dict[str, Any]) -> None:
        if trial_id not in self.records:
            configuration = self.complete(config)
            folder = self._folder_of(configuration)
            self.records[trial_id] = TrialFolder.open(trial_id, configuration, folder)
        record = self.records[trial_id]
        record.status, record.finished = "running", False

    def fetch_status_results(self, trial_ids: list[int]) -> Any:
        """Continue trials whose reports the scheduler has seen, and wait shortly for messages."""
        running = [self.records[n] for n in trial_ids if self.records[n].status == "running"]
        for record in running:
            self._go_on(record)
        if not any(
            record.shown > self._last_metric_seen_index[record.number] for record in running
        ):
            self._listen(running)
        return super().fetch_status_results(trial_ids)

    def _all_trial_results(self, trial_ids: list[int]) -> list[TrialResult]:
        return [self._result(self._trial_dict[n], self.records[n]) for n in trial_ids]

    def _stop_trial(self, trial_id: int, result: dict | None) -> None:
        record = self.records[trial_id]
        record.status, record.finished = "stopped", result is not None
        self._leave(trial_id, kill=True)
        record.drop_checkpoint()

    def _pause_trial(self, trial_id: int, result: dict | None) -> None:
        record = self.records[trial_id]
        record.status, record.finished = "paused", True
        if trial_id in self._running:
            self._await_pause(record, self._running[trial_id])
        self._leave(trial_id)

    def _resume_trial(self, trial_id: int) -> None:
        """Do nothing: `_schedule` follows, and the trial finds its checkpoint."""

    def busy_trial_ids(self) -> list[tuple[int, str]]:
        return [(n, Status.in_progress) for n, r in self.records.items() if r.status == "running"]

    def stdout(self, trial_id: int) -> list[str]:
        return [f"{line}\n" for line in self.records[trial_id].log()]

    def stderr(self, trial_id: int) -> list[str]:
        return []

    def copy_checkpoint(self, src_trial_id: int, tgt_trial_id: int) -> None:
        raise NotImplementedError("a trial starts from the parent's state or its own checkpoint")

    def delete_checkpoint(self, trial_id: int) -> None:
        self.records[trial_id].drop_checkpoint()

    def entrypoint_path(self) -> Path:
        return Path(__file__)

    def close(self) -> None:
        """End all processes."""
        for trial in list(self._running):
            self._leave(trial)
        self.processes.close()

    # -- one trial --------------------------------------------------------------------------------

    def _folder_of(self, configuration: Mapping[str, Any]) -> Path:
        name = files.digest(dict(configuration))[:16]
        same = sum(record.configuration == configuration for record in self.records.values())
        return self.folder / (f"{name}-{same + 1}" if same else name)

    def _go_on(self, record: TrialFolder) -> None:
        """Answer a waiting trial, or start it; recorded reports of a killed search come first."""
        process = self._running.get(record.number)
        if record.shown < len(record.reports):
            record.shown += 1
        elif record.is_whole:
            return
        elif process is None:
            self._start(record)
        elif process.waits:
            process.waits = False
            process.channel.send(answer="go")

    def _start(self, record: TrialFolder) -> None:
        ours, theirs = socket.socketpair()
        self._started += 1
        try:
            self.processes.start(self._started, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        used = Counter(process.device for process in self._running.values())
        device = min(self.devices, key=lambda each: used[each], default="")
        process = _Process(self._started, SearchChannel(ours), device)
        self._running[record.number] = process
        process.channel.send(
            configuration=dict(record.configuration),
            folder=str(record.folder),
            environment={"CUDA_VISIBLE_DEVICES": device} if device else {},
            rehearses=record.number == 0 and not record.reports,
        )

    def _listen(self, running: Sequence[TrialFolder]) -> None:
        """Wait for messages of trials, and handle them."""
        if self._running:
            select.select(list(self._running.values()), [], [], LOOK)
        self._codes |= self.processes.ended()
        for record in running:
            if record.number in self._running:
                self._hear(record, self._running[record.number])

    def _hear(self, record: TrialFolder, process: _Process) -> None:
        channel = process.channel
        for message in channel.received():
            if "files" in message:
                self.take_files(message["files"])
            if "epoch" in message:
                self._take(record, process, Report(**message))
            process.mistake = message.get("mistake", process.mistake)
        if record.reports and record.reports[-1].final:
            record.status, record.finished = "completed", True
            self._leave(record.number)
        elif channel.ended or process.number in self._codes:
            code = self._code_of(process)
            self._fail(record, process.mistake or f"it ended with code {code}{_meaning(code)}")
            if process.mistake and not any(other.shown for other in self.records.values()):
                raise TrialMistakeError(process.mistake)
        elif not process.waits and time.monotonic() - channel.heard > self.silence:
            self._fail(record, f"it gave no sign of life for {self.silence:g} s")

    def _take(self, record: TrialFolder, process: _Process, report: Report) -> None:
        """Record a report; a report that a killed search already recorded needs no decision."""
        if report.epoch <= len(record.reports):
            process.channel.send(answer="go")
            return
        record.add(report)
        record.shown = len(record.reports)
        process.waits = True

    def _fail(self, record: TrialFolder, reason: str) -> None:
        record.status, record.finished, record.reason = "failed", True, reason.splitlines()[0]
        self._leave(record.number, kill=True)
        record.drop_checkpoint()

    def _await_pause(self, record: TrialFolder, process: _Process) -> None:
        """Wait until a trial has written its checkpoint; if it fails, it will start from epoch 1."""
        channel, until = process.channel, time.monotonic() + self.silence
        channel.send(answer="pause")
        while not channel.ended and time.monotonic() < until:
            select.select([channel], [], [], LOOK)
            if any("paused" in message for message in channel.received()):
                return
        record.drop_checkpoint()
        self.processes.kill(process.number)

    def _code_of(self, process: _Process) -> int:
        """Return the exit code of a process that has closed its connection and is about to end."""
        until = time.monotonic() + 5
        while process.number not in self._codes and time.monotonic() < until:
            time.sleep(0.01)
            self._codes |= self.processes.ended()
        return self._codes.get(process.number, KILLED)

    def _leave(self, trial: int, kill: bool = False) -> None:
        self.records[trial].ended = time.time()
        if trial not in self._running:
            return
        process = self._running.pop(trial)
        if kill:
            self.processes.kill(process.number)
        process.channel.close()

    def _result(self, trial: Trial, record: TrialFolder) -> TrialResult:
        reports = [
            {**r.metrics, "epoch": r.epoch, "steps": r.steps, ST_WORKER_TIMESTAMP: r.epoch}
            for r in record.seen
        ]
        if record.is_whole and record.status == "running":  # all reports are from a killed search
            record.status, record.finished = "completed", True
        return trial.add_results(reports, SYNE_TUNE[record.status], datetime.now())


def _meaning(code: int) -> str:
    return " (killed, most likely because memory ran out)" if code == KILLED else ""
