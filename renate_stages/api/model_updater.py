"""`ModelUpdater`: update a model on datasets, for a program that has no project and no config."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from renate_stages import files
from renate_stages.api.locations import link_folder
from renate_stages.errors import InvalidParamsError, UserConfigError, did_you_mean, user_code
from renate_stages.memory.forget_list import CountedForgetList, ForgetList
from renate_stages.models import RenateModule, unwrap
from renate_stages.models.stored import as_renate_module, build_model, write_model
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.state import MODEL_FILES, State, new_data, prepared, state
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Retention
from renate_stages.training.checks import check_hyperparameters
from renate_stages.training.measured_update import MeasuredUpdate
from renate_stages.user.config import FUNCTIONS, UserConfig

TASK_ID = "default_task"
STATE = "state"
"""Name of the state's folder in the folder of the updater."""

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Updated:
    """The result of one update.

    Args:
        update: Number of the update, from 1.
        curves: Losses, and metrics on the validation data, of each epoch.
        metrics: Metrics on the holdout of each update so far, by its number.
        state: The new state, with the memory; valid until the next update.
    """

    update: int
    curves: list[dict[str, float]]
    metrics: Mapping[int, Mapping[str, float]]
    state: State


@dataclass(eq=False)
class ModelUpdater:
    """Updates a model again and again with a learner, which keeps its memory in between.

        updater = ModelUpdater(model, nn.CrossEntropyLoss(), partial(SGD, lr=0.1), learner="ER")
        for week in weeks:
            updater.update(week.train, week.val)  # changes the weights of `model`

    It trains as a pipeline does, but writes no reports and runs no search. For both, and to start
    from any earlier state, use `run_training_job`.

    Args:
        model: The model. An update starts from its current weights, and changes them in place.
            Learners that start anew, such as GDumb, use the weights that it has now.
        loss_fn: Loss of outputs and targets; None: the loss of the task.
        optimizer: Builds the optimizer from the parameters, such as `partial(SGD, lr=0.1)`; None:
            one from `hyperparameters`, as in `params.yaml`.
        learner: Name of a learner.
        hyperparameters: Hyperparameters of the learner, such as `{"memory_size": 500}`.
        max_epochs: Passes over the new data.
        trainer: Further keys of the block `trainer` in `params.yaml`.
        transforms: Transforms under their names in a config: `train_transform`, `test_transform`,
            `buffer_transform`, and the same with `_target_transform`.
        task: What targets and outputs mean, as `task` in `params.yaml`.
        metric: The metric by which `trainer.keep` chooses an epoch.
        mode: Whether higher (`max`) or lower (`min`) values of it are better.
        seed: Seed of all random generators.
        folder: Keeps the state. If it has one already, the model gets the weights of that state,
            and the next update continues from it. None: a temporary folder.

    Raises:
        InvalidParamsError: If a setting has a wrong value.
        UnknownHyperparameterError: If nothing reads one of the hyperparameters.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], torch.Tensor] | None = None
    optimizer: Optimizer | None = None
    learner: str = "ER"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    max_epochs: int = 50
    trainer: Mapping[str, Any] = field(default_factory=dict)
    transforms: Mapping[str, Callable] = field(default_factory=dict)
    task: str = "auto"
    metric: str = "accuracy"
    mode: str = "max"
    seed: int = 0
    folder: Path | str | None = None

    def __post_init__(self) -> None:
        self._built = copy.deepcopy(self.model)
        check_hyperparameters(self._user, self._params(1).learner, self.hyperparameters)
        parent = self.state
        if parent.has_model:
            self._take(build_model(self._user, {}, parent.folder, TASK_ID))

    @property
    def state(self) -> State:
        """The state after the latest update; empty before the first one."""
        folder = self._folder / STATE
        if not folder.is_dir():
            with files.whole_directory(folder) as new:
                state.write_empty(new)
        return State.open(folder)

    def update(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        *,
        task_id: str = TASK_ID,
        ragged: Sequence[str] = (),
        say: Callable[[str], None] = print,
    ) -> Updated:
        """Train the model on new data and on the memory, and choose what to remember.

        Args:
            train: Items `(inputs, targets)` or `(inputs, targets, metadata)`.
            val: Validation data; later updates are validated on it too.
            test: A holdout, on which the model is measured now and after later updates.
            task_id: Task of the data, for models with parameters for each task.
            ragged: Paths of inputs of varying length, as `RenateDataModule.ragged_fields`.
            say: Prints one line for the user.

        Raises:
            RenateStagesError: If the data or a setting cannot be used; the model is then unchanged.
        """
        number = self.state.provenance.update + 1
        params = self._params(number, task_id)
        with tempfile.TemporaryDirectory(prefix=".update-", dir=self._folder) as name:
            scratch = Path(name)
            parent = self._parent(scratch / "parent")
            data = self._ingested(train, val, test, tuple(ragged), scratch / "new", number)
            rules = Retention(ForgetList(), params.retention, Generators(self.seed, number))
            kept = rules.apply(parent, data, scratch / "kept")
            done = MeasuredUpdate.run(self._user, params, parent, kept, key="", say=say)
            done.write_state(self._folder / STATE)
        self._take(done.updated.model)
        measured = {n: dict(each.metrics) for n, each in done.answers.after.items()}
        return Updated(number, done.updated.curves, measured, self.state)

    def _parent(self, folder: Path) -> State:
        """Return the state to start from, with the current weights of the user's model."""
        last = self.state
        link_folder(last.folder, folder)
        for name in MODEL_FILES:
            (folder / name).unlink(missing_ok=True)
        if last.has_model:
            write_model(folder, as_renate_module(self.model))
        else:
            self._built.load_state_dict(self.model.state_dict())
        return State.open(folder)

    def _params(self, number: int, task_id: str = TASK_ID) -> Params:
        content = {
            "seed": self.seed,
            "update": {"number": number, "parent": number - 1, "task_id": task_id},
            "task": self.task,
            "learner": self.learner,
            "hyperparameters": dict(self.hyperparameters),
            "trainer": {"max_epochs": self.max_epochs, **self.trainer},
            "evaluation": {"metric": self.metric, "mode": self.mode},
        }
        params = Params.parse(content, "ModelUpdater")
        if searched := sorted(params.search_space.domains):
            problem = f"hyperparameters.{searched[0]}: expected a constant, found a search space"
            raise InvalidParamsError("ModelUpdater", [problem])
        if params.trainer.num_processes > 1:
            problem = f"trainer: expected 1 process, found {params.trainer.num_processes}"
            raise InvalidParamsError(
                "ModelUpdater", [f"{problem}; run_training_job trains with several"]
            )
        return params

    def _ingested(
        self,
        train: Dataset,
        val: Dataset | None,
        test: Dataset | None,
        ragged: tuple[str, ...],
        folder: Path,
        number: int,
    ) -> PreparedData:
        parent = self.state
        splits = new_data.Splits(train, val, test, ragged)
        forget, earlier = CountedForgetList(ForgetList()), new_data.earlier_rows(parent)
        with files.whole_directory(folder) as new, user_code.running("a dataset of update()"):
            stores = new_data.ingest_splits(splits, new, number, forget, earlier)
            new_data.check_structure(stores["train"], parent)
            prepared.write_manifest(new, number)
        return PreparedData.open(folder)

    def _take(self, updated: RenateModule) -> None:
        """Copy the weights of the updated model into the user's model."""
        given = unwrap(self.model)
        given.load_state_dict(unwrap(updated).state_dict())

    @cached_property
    def _folder(self) -> Path:
        if self.folder is not None:
            return Path(self.folder)
        folder = Path(tempfile.mkdtemp(prefix="renate-stages-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @cached_property
    def _user(self) -> UserConfig:
        """The arguments as the functions of a config."""

        def model_fn() -> nn.Module:
            return copy.deepcopy(self._built)

        functions: dict[str, Callable] = {"model_fn": model_fn}
        if self.loss_fn is not None:
            functions["loss_fn"] = lambda: self.loss_fn
        if self.optimizer is not None:
            functions["optimizer_fn"] = lambda: self.optimizer
        path = self._folder / "code" / "renate_config.py"  # for messages; nothing is read
        known = [name for name in FUNCTIONS if name.endswith("_transform")]
        for name in self.transforms:
            if name not in known:
                problem = f"unknown transform '{name}'{did_you_mean(name, known)}"
                raise UserConfigError("ModelUpdater", problem, f"choose from {', '.join(known)}")
        functions |= {name: _returning(each) for name, each in self.transforms.items()}
        return UserConfig(path, functions)


def _returning(value: Callable) -> Callable[[], Callable]:
    return lambda: value
