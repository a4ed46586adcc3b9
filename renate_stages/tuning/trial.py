"""Run one trial: the training of an update with one configuration.

A trial reports after each epoch and waits for the answer. Its inputs are the same as those of all
other trials and of the stage `train`. It writes a log and a checkpoint of its last epoch to its own
folder. From this checkpoint a paused trial resumes, and `train` can use the training of a completed
trial without training again.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from renate_stages.errors import NotFiniteError, RenateStagesError
from renate_stages.learners.base import Learner
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.preprocessing import read_preprocessing
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import State
from renate_stages.state.inputs import update_inputs
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Kept, Retention
from renate_stages.training.callbacks import Follower, is_last_epoch, validation_metrics
from renate_stages.training.rehearsal import STEP, RehearsalError, rehearse
from renate_stages.training.resume import Resume, generators, restore_generators
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updater import Updater
from renate_stages.tuning.channel import TrialChannel
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.search_files import PARAMETERS, digest_of
from renate_stages.user.config import UserConfig
from renate_stages.user.used_files import UserFiles

LOG = "log.txt"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrialInputs:
    """The inputs that all trials of a search share.

    Args:
        project: The project.
        params: Parameters of the update; a trial's configuration may change learner and epochs.
        parent: The state to start from.
        data: The new examples.
        kept: Parent and data without the examples that must not be kept.
        parameters: Digest of the parameters as read from `params.yaml`.
    """

    project: Project
    params: Params
    parent: State
    data: PreparedData
    kept: Kept
    parameters: str

    @classmethod
    def open(cls, project: Project, scratch: Path) -> TrialInputs:
        """Open the inputs: small files and NumPy memory maps, without torch or the user's code.

        A trial trains on one device with whole batches, so it takes the same steps as an update on
        several devices.

        Args:
            project: A project in which `prepare` and `restore-state` have run.
            scratch: An empty folder for stores without the rows that must not be kept.
        """
        read = Params.load(project.params)
        params = read.model_copy(update={"trainer": read.trainer.on_one_device()})
        parent = State.open(project.restored, examples=project.parent)
        data = PreparedData.open(project.prepared)
        rules = Generators(params.seed, params.update.number)
        retention = Retention(ForgetList.read(project.forget_list), params.retention, rules)
        kept = retention.apply(parent, data, scratch, splits=("validation",))
        return cls(project, params, parent, data, kept, digest_of(read))


class TrialPaused(SystemExit):
    """Ends the process of a paused trial, which resumes later from its checkpoint."""


class Reporter(Follower):
    """Reports each epoch except the last, which `run` reports when the model is finished.

    With `trainer.keep: best`, a report describes the best epoch so far, whose model would be kept
    if training ended now.
    """

    def __init__(
        self, channel: TrialChannel, objective: Objective, used: UserFiles, known: dict[str, str]
    ) -> None:
        self.channel = channel
        self.objective = objective
        self._used, self._known, self._reported = used, known, {}
        self.metrics: dict[int, dict[str, float]] = {}  # by epoch
        self.paused = False

    def on_train_batch_end(self, *_: Any) -> None:
        self.channel.beat()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Learner = pl_module  # type: ignore[assignment]
        epoch, union = trainer.current_epoch + 1, validation_metrics(self.curves[-1])
        assert self.measure is not None, "a search needs validation data"
        with _same_generators():
            self.metrics[epoch] = self.objective.metrics(self.measure, learner.measured, union)
        if is_last_epoch(trainer):
            return
        kept = self.metrics[(self.best.epoch if self.best is not None else 0) or epoch]
        self.report_files()
        self.channel.send(epoch=epoch, steps=trainer.global_step, metrics=kept, final=False)
        self.paused = self.channel.receive()["answer"] == "pause"
        trainer.should_stop |= self.paused

    def report_files(self) -> None:
        """Send the hashes of the files that this trial has used so far, if any are new."""
        hashes = {**self._known, **self._used.record()}
        if hashes != self._reported:
            self.channel.send(files=hashes)
            self._reported = hashes

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.paused:  # the checkpoint has already been written
            raise TrialPaused

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metrics = state_dict["metrics"]


@contextmanager
def _same_generators() -> Iterator[None]:
    """Restore the global random generators, because a trial measures more often than `train`."""
    before = generators()
    yield
    restore_generators(before)


def run(inputs: TrialInputs, user: UserConfig, channel: TrialChannel, request: Any) -> None:
    """Train with one configuration and report each epoch.

    Raises:
        TrialPaused: If the search pauses the trial; the checkpoint has been written.
        RenateStagesError: If the configuration or a shared input cannot be used.
    """
    params = inputs.params.fixed(request["configuration"])
    labels = inputs.kept.data.labels or inputs.parent.provenance.labels
    updater = Updater(user, params, params.hyperparameters, labels=labels)
    objective = Objective.of(params)
    own = update_inputs(inputs.project, params, inputs.parent, inputs.data)
    folder = Path(request["folder"]) / CHECKPOINTS
    resume = Resume.of(folder, own, whole=True, used=user.files)
    reporter = Reporter(channel, objective, user.files, {PARAMETERS: inputs.parameters})
    if request["rehearses"]:
        with TemporaryDirectory(dir=request["folder"]) as scratch:
            few = Path(scratch) / "rehearsal"
            rehearse(user, params, inputs.parent, inputs.kept, few, splits=("validation",))
    data = UpdateData.of(inputs.kept, inputs.parent)
    trained = updater.train(data, resume=resume, follower=reporter)
    model, measure = trained.learner.model.eval(), trained.measure
    assert measure is not None, "a search needs validation data"
    metrics = objective.metrics(measure, model, measure(model))
    epoch = len(trained.curves)
    reporter.report_files()
    channel.send(epoch=epoch, steps=trained.steps, metrics=metrics, final=True)


def work(channel: TrialChannel, open_inputs: Callable[[Path], TrialInputs]) -> int:
    """Run the trial that a search requests over a channel; return the exit code of this process.

    Args:
        channel: Receives the request and sends reports.
        open_inputs: Returns the inputs, opening them if needed; its argument is an empty folder.
    """
    request = channel.receive()
    folder = Path(request["folder"])
    with (folder / LOG).open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(request["environment"])
    try:
        inputs = open_inputs(folder)
        user = UserConfig.of(inputs.project, "tune", named=inputs.params.named_model)
        user.preprocessing = read_preprocessing(inputs.project.prepared)
        run(inputs, user, channel, request)
    except TrialPaused:
        channel.send(paused=True)
    except RenateStagesError as error:
        print(f"error: {error}", file=sys.stderr)
        if not isinstance(error, NotFiniteError):
            channel.send(mistake=str(error))
        return 2
    except RehearsalError as error:
        traceback.print_exc()
        if error.part != STEP:  # a step may fail for this configuration alone
            channel.send(mistake=f"{error}: {error.__cause__!r}")
        return 1
    except Exception:  # noqa: BLE001 -- after any error the search continues without this trial
        traceback.print_exc()
        return 1
    return 0
