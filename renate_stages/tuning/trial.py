"""Run one trial: the training of an update with one configuration.

It reports after each epoch and waits for the answer. What it reads is shared with all other trials
and with the stage `train`; what it writes lies in its own folder: a log and a checkpoint of its last
epoch, from which `train` has nothing left to train, and from which a paused trial goes on.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from renate_stages.errors import NotFiniteError, RenateStagesError
from renate_stages.learners.base import Learner
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import State
from renate_stages.state.inputs import update_inputs
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Kept, Retention
from renate_stages.training.callbacks import Follower, is_last_epoch, validation_metrics
from renate_stages.training.resume import Resume, generators, restore_generators
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updater import ModelUpdater
from renate_stages.tuning.channel import TrialChannel
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.search_files import PARAMETERS, digest_of
from renate_stages.user.config import UserConfig
from renate_stages.user.used_files import UserFiles

LOG = "log.txt"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a search read.

    Args:
        project: Where it lies.
        params: Of the update; a trial's configuration may change learner and epochs.
        parent: The state to start from.
        data: The new examples.
        kept: Both without what may not be kept.
        parameters: Digest of the parameters as they were read.
    """

    project: Project
    params: Params
    parent: State
    data: PreparedData
    kept: Kept
    parameters: str

    @classmethod
    def open(cls, project: Project, scratch: Path) -> TrialInputs:
        """Open the inputs: small files and NumPy maps, nothing of torch and of the user.

        A trial trains on one device, whole batches: the steps are those of an update on several.

        Args:
            project: Whose `prepare` and `restore-state` have run.
            scratch: An empty folder for stores without the rows that may not be kept.
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
    """A trial's process ends; it goes on later from its checkpoint."""


class Reporter(Follower):
    """Reports each epoch but the last, which is reported when the model is finished.

    Where the best epoch is kept, a report is of the model that would be kept if training ended now.
    """

    def __init__(
        self, channel: TrialChannel, objective: Objective, used: UserFiles, known: dict[str, str]
    ) -> None:
        self.channel = channel
        self.objective = objective
        self._used, self._known, self._told = used, known, {}
        self.metrics: dict[int, dict[str, float]] = {}  # by epoch
        self.paused = False

    def on_train_batch_end(self, *_: Any) -> None:
        self.channel.beat()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner: Learner = pl_module  # type: ignore[assignment]
        epoch, union = trainer.current_epoch + 1, validation_metrics(self.curves[-1])
        assert self.measure is not None, "a search needs validation data"
        with _same_generators():
            self.metrics[epoch] = self.objective.metrics(self.measure, learner.served, union)
        if is_last_epoch(trainer):
            return
        kept = self.metrics[self.best.epoch if self.best is not None else epoch]
        self.tell_files()
        self.channel.send(epoch=epoch, steps=trainer.global_step, metrics=kept, final=False)
        self.paused = self.channel.receive()["answer"] == "pause"
        trainer.should_stop |= self.paused

    def tell_files(self) -> None:
        """Tell the search what this trial was made of so far, where that is new."""
        found = {**self._known, **self._used.record()}
        if found != self._told:
            self.channel.send(files=found)
            self._told = found

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.paused:  # the checkpoint is written
            raise TrialPaused

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metrics = state_dict["metrics"]


@contextmanager
def _same_generators() -> Iterator[None]:
    """Leave the global generators as they were: a trial measures more than a training does."""
    before = generators()
    yield
    restore_generators(before)


def run(inputs: TrialInputs, user: UserConfig, channel: TrialChannel, request: Any) -> None:
    """Train with one configuration, and report.

    Raises:
        TrialPaused: If the search said so; the checkpoint is written.
        RenateStagesError: If the configuration, or something that all share, cannot be used.
    """
    params = inputs.params.fixed(request["configuration"])
    updater = ModelUpdater(user, params, params.hyperparameters)
    objective = Objective.of(params)
    own = update_inputs(inputs.project, params, inputs.parent, inputs.data)
    folder = Path(request["folder"]) / CHECKPOINTS
    resume = Resume.of(folder, own, whole=True, used=user.files)
    reporter = Reporter(channel, objective, user.files, {PARAMETERS: inputs.parameters})
    data = UpdateData.of(inputs.kept, inputs.parent)
    trained = updater.train(data, resume=resume, follower=reporter)
    model, measure = trained.learner.model.eval(), trained.measure
    assert measure is not None, "a search needs validation data"
    metrics = objective.metrics(measure, model, measure(model))
    epoch = len(trained.curves)
    reporter.tell_files()
    channel.send(epoch=epoch, steps=trained.steps, metrics=metrics, final=True)


def work(channel: TrialChannel, open_inputs: Callable[[Path], TrialInputs]) -> int:
    """Do what a search asks for over a channel; return the exit code of this process.

    Args:
        channel: Brings the request, and takes reports.
        open_inputs: Opens the inputs, or returns those that are open; given an empty folder.
    """
    request = channel.receive()
    folder = Path(request["folder"])
    with (folder / LOG).open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(request["environment"])
    try:
        inputs = open_inputs(folder)
        user = UserConfig.of(inputs.project, "tune")
        run(inputs, user, channel, request)
    except TrialPaused:
        channel.send(paused=True)
    except RenateStagesError as error:
        print(f"error: {error}", file=sys.stderr)
        if not isinstance(error, NotFiniteError):
            channel.send(mistake=str(error))
        return 2
    except Exception:  # noqa: BLE001 -- whatever it is, the search goes on without this trial
        traceback.print_exc()
        return 1
    return 0
