"""`Updater`: train a learner with Lightning, starting from a parent's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from renate_stages import files
from renate_stages.data import StoredDataset
from renate_stages.data.ranks import copy_from_rank_0, ranks
from renate_stages.data.resident import check_transforms
from renate_stages.errors import TooFewNamesError
from renate_stages.evaluation.evaluator import examine
from renate_stages.evaluation.examined import ExaminedHoldouts
from renate_stages.learners import registry
from renate_stages.learners.base import Learner, hyperparameters_of
from renate_stages.learners.base.context import StartingPoint, TrainingFunctions, UpdateContext
from renate_stages.learners.base.measure import Measure, Metrics
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.memory import ExampleStore, Selection
from renate_stages.models import RenateModule
from renate_stages.models.stored import build_model, grown_tensors, read_tensors
from renate_stages.params import Params
from renate_stages.randomness import Generators, seed_torch
from renate_stages.state import LEARNER_FILES, MODEL_FILES, State
from renate_stages.training import double
from renate_stages.training.callbacks import Follower
from renate_stages.training.checks import (
    check_hyperparameters,
    check_sharing,
    check_values,
    check_weights,
)
from renate_stages.training.launch import check_processes
from renate_stages.training.resume import CheckpointWriter, Resume
from renate_stages.training.trainer import check_trainer, make_trainer, quiet
from renate_stages.training.update_callbacks import UpdateCallbacks
from renate_stages.training.update_data import UpdateData
from renate_stages.training.update_task import UpdateTask
from renate_stages.training.updated_model import Trained, UpdatedModel
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig


class Updater:
    """Updates a model. The constructor checks everything that can be checked before loading data.

    Args:
        user: The user's functions.
        params: Number of the update, learner, trainer, seed, evaluation.
        hyperparameters: Constants for the learner, the optimizer and the user's functions.
        say: Prints one line for the user.
        labels: Names of the labels of the new data and of earlier updates; empty if labels are
            numbers.

    Raises:
        UnknownHyperparameterError: If nothing reads one of the hyperparameters.
        InvalidHyperparameterError: If a hyperparameter is outside its range.
        InvalidParamsError: If this machine does not have the accelerator, or Lightning does not
            support the precision.
        UnsharedLearnerError: If the learner would ignore a setting of the trainer.
        NotBatchedError: If `trainer.data_on_device` is set and a transform takes single examples.

    Example:
        >>> updater = Updater(user, params, {"learning_rate": 0.05, "memory_size": 500})
        >>> updated = updater.update(UpdateData(parent, train_store, {1: validation_store}))
    """

    def __init__(
        self,
        user: UserConfig,
        params: Params,
        hyperparameters: Mapping[str, Any],
        say: Callable[[str], None] = print,
        labels: Sequence[str] = (),
    ) -> None:
        unused = check_hyperparameters(user, params.learner, hyperparameters)
        check_sharing(params)
        check_values(params, hyperparameters)
        if unused:
            say(f"hyperparameters not used by {params.learner}: {', '.join(unused)}")
        self.user = user
        self.params = params
        self.say = say
        self.labels = tuple(labels)
        self.hyperparameters = dict(hyperparameters)
        self.generators = Generators(params.seed, params.update.number)
        self.transforms = user.transforms(hyperparameters)
        own_loss = optimization.loss_fn(user, hyperparameters)
        self.task = UpdateTask(params.task, own_loss, params.update.task_id)
        self._functions = TrainingFunctions(
            self.task.loss,
            optimization.optimizer_fn(user, hyperparameters),
            optimization.lr_scheduler_fn(user, hyperparameters),
            self.transforms.test,
            self.transforms.memory,
        )
        if params.trainer.data_on_device:
            train, memory = self.transforms.train, self.transforms.memory
            names = ("train_transform", "train_target_transform")
            check_transforms(dict(zip(names, train, strict=True)))
            names = ("buffer_transform", "buffer_target_transform")
            check_transforms(dict(zip(names, memory, strict=True)))
        torch.set_num_threads(params.trainer.threads)
        check_trainer(params.trainer)  # refuses a wrong value now, not after loading data

    @property
    def functions(self) -> TrainingFunctions:
        """The user's functions, with the loss for the task as far as it is known."""
        return replace(self._functions, loss_fn=self.task.loss)

    def build_model(self, stored: Path | None) -> RenateModule:
        """Build the user's model, with stored tensors or with new weights from the seed."""
        self.generators.seed_global("model")
        return build_model(self.user, self.hyperparameters, stored, self.params.update.task_id)

    def make_room(
        self, model: RenateModule, examples: StoredDataset, parent: State | None = None
    ) -> None:
        """Let a model grow if there are more named labels than outputs, or new codes of inputs.

        The new outputs have the layer's own initialisation, under a seed of the update.

        Args:
            model: The model to change.
            examples: New examples, with the test transforms.
            parent: The state whose model it is; None for a new model.

        Raises:
            OutputLayerError: If the model cannot grow.
            TooFewNamesError: If the parent's model has outputs without a declared name.
        """
        if self.user.preprocessing is not None:
            model.grow_inputs(self.user.preprocessing.sizes())
        if not self.labels or not len(examples):
            return
        order, known = self.params.data.labels.order, ()
        if parent is not None:
            known = parent.provenance.labels
        with torch.random.fork_rng(devices=[]):
            seed_torch(self.generators.integer("new outputs"))
            declared = bool(order or known)
            outputs = self.task.make_room(model, examples, self.labels, declared)
        if parent is not None and parent.has_model and not known and (outputs or 0) > len(order):
            raise TooFewNamesError(outputs or 0, order)

    def test_set(self, store: ExampleStore) -> StoredDataset:
        """Return a dataset of stored examples with the test transforms applied."""
        return StoredDataset(store, None, *self.transforms.test)

    def examine(
        self,
        model: RenateModule,
        datasets: Mapping[int, Dataset],
        task_ids: Mapping[int, str] | None = None,
        *,
        split: str = "holdout",
        keep_rows: bool = False,
    ) -> ExaminedHoldouts:
        """Return a model's metrics and predictions on each dataset.

        Args:
            model: The model; its training or evaluation mode is restored afterwards.
            datasets: Datasets by the number of their update.
            task_ids: Task id of each update; None: this update's for all.
            split: What the datasets are, for messages.
            keep_rows: Whether to keep values of rows for intervals, see `evaluator.examine`.
        """
        metrics_fn = None
        if "metrics_fn" in self.user.functions:
            metrics_fn = partial(self.user.call, "metrics_fn", self.hyperparameters)
        for dataset in datasets.values():
            self.task.find(model, dataset)
        return examine(
            model,
            datasets,
            metrics_fn=metrics_fn,
            loss_fn=self.task.own_loss,
            task=self.task.task,
            task_ids=task_ids or dict.fromkeys(datasets, self.params.update.task_id),
            batch_size=self.params.evaluation.batch_size,
            device=next(model.parameters()).device,
            places={number: f"{split} {number}" for number in datasets},
            keep_rows=keep_rows,
        )

    def update(self, data: UpdateData, *, resume: Resume | None = None) -> UpdatedModel:
        """Train the parent's model on new examples, and choose the examples to keep.

        Args:
            data: The state to start from, and the examples.
            resume: Folder for checkpoints, from which an interrupted training also resumes; None:
                without checkpoints.

        Raises:
            NotFiniteError: If the training loss is not a finite number.
        """
        trained = self.train(data, resume=resume)
        learner = trained.learner
        model = learner.to("cpu").model.eval()
        chosen = learner.choose_memory()
        return UpdatedModel(
            model,
            learner,
            chosen,
            trained.curves,
            trained.steps,
            learner.tables(),
            trained.seconds,
            trained.examples,
        )

    def train(
        self, data: UpdateData, *, resume: Resume | None = None, follower: Follower | None = None
    ) -> Trained:
        """Train as `update` does, without choosing a memory.

        Args:
            data: As in `update`.
            resume: As in `update`.
            follower: A callback that is called after each epoch and may end the training.

        Raises:
            NotFiniteError: If the training loss is not a finite number.
            InvalidParamsError: If `trainer.keep` is `best`, or `trainer.patience` is set, and there is no
                validation data.
            ProcessCountError: If the number of processes differs from what `trainer` asks for.
            UnweightedLearnerError, UnweightedLossError: If rows have weights, and the learner or the
                loss cannot use them.
            NoRowWeighsError: If all new examples have the weight 0.
        """
        check_processes(self.params.trainer, ranks().count)
        learner = self.restored(data)
        old_data = StoredDataset(data.parent.memory(), None, *self.transforms.memory)
        new_data = StoredDataset(data.new, None, *self.transforms.train)
        check_weights(learner, new_data, old_data)
        learner.start_update(new_data, old_data, data.keepable)
        learner.change_weights()

        measure = self._measure(data)
        observers = UpdateCallbacks(self.params.trainer, measure, follower)
        rank = ranks().rank  # each process needs its own augmentation and dropout
        self.generators.seed_global(f"training of process {rank}" if rank else "training")
        checkpoint = writer = None
        if resume is not None:
            checkpoint = resume.checkpoint()
            writer = CheckpointWriter(resume, learner, observers.curves, checkpoint)
            observers.add(writer)
        with quiet(), self.user.files.training(), self._precision(learner):
            trainer = make_trainer(self.params.trainer, learner, observers.all)
            try:
                trainer.fit(learner, ckpt_path=resume.file if resume and checkpoint else None)
            finally:
                learner.reading.stop()
        learner.to(trainer.strategy.root_device)  # Lightning moves the learner to the CPU
        if writer is not None:
            writer.training_ended()
        if observers.best is not None:
            observers.best.give_back(learner)
        learner.end_training(measure)
        copy_from_rank_0(learner.model)
        cost = observers.cost
        return Trained(
            learner, observers.curves, trainer.global_step, measure, cost.seconds, cost.examples
        )

    def _precision(self, learner: Learner) -> AbstractContextManager[None]:
        if self.params.trainer.precision != double.PRECISION:
            return nullcontext()
        return double.double_precision(learner)

    def _measure(self, data: UpdateData) -> Measure | None:
        """Return the `Measure` on validation data, which uses the task of each update."""
        datasets = {n: self.test_set(store) for n, store in data.validation.items() if len(store)}
        if not datasets:
            return None
        update, headline = self.params.update, self.params.evaluation
        task_ids = {int(number): task for number, task in data.parent.provenance.task_ids.items()}
        task_ids |= {update.number: update.task_id}

        def evaluate(
            model: RenateModule, datasets: Mapping[int, Dataset]
        ) -> tuple[Metrics, dict[int, Metrics]]:
            examined = self.examine(model, datasets, task_ids, split="validation split")
            return examined.together, {n: each.metrics for n, each in examined.items()}

        return Measure(evaluate, datasets, update.number, headline.metric, headline.mode)

    def carry_over(self, data: UpdateData) -> UpdatedModel:
        """Return the parent's model, learner and whole memory without training."""
        learner = self.restored(data, trains=False)
        if data.forgotten is not None and not len(data.forgotten) and learner.keeps_tensors:
            learner.forget(data.forgotten)  # its tensors may hold a forgotten example
        all_rows = Selection(np.arange(len(data.parent.memory())), np.empty(0, dtype=np.int64))
        return UpdatedModel(learner.model.eval(), learner, ChosenMemory(all_rows), [], 0)

    def restored(self, data: UpdateData, *, trains: bool = True) -> Learner:
        """Restore the parent's model and learner, and remove the forgotten examples from them."""
        parent = data.parent
        self.task.inherit(parent)
        new_model = self.build_model(None)
        model = self.build_model(parent.folder if parent.has_model else None)
        if trains:
            new, memory = (self.test_set(store) for store in (data.new, parent.memory()))
            self.make_room(new_model, new)
            self.make_room(model, new, parent)
            datasets = {"the training data": new, "the memory": memory}
            for number, store in data.validation.items():
                datasets[f"the validation data of update {number}"] = self.test_set(store)
            calls_loss = registry.learner_class(self.params.learner).calls_loss
            weighted = calls_loss and (new.is_weighted or memory.is_weighted)
            self.task.check(model, datasets, weighted=weighted)
        else:
            self.task.find(model, self.test_set(parent.memory()))
        learner = self.learner(model, new_model.state_dict(), parent)
        if parent.has_learner:
            tensors = read_tensors(parent.folder / LEARNER_FILES[0])
            learner.restore_learner(tensors, files.read_json(parent.folder / LEARNER_FILES[1]))
        if data.memory_rows is not None and not data.memory_rows.all():
            learner.lose_rows(data.memory_rows)
        if data.forgotten is not None and len(data.forgotten):
            learner.forget(data.forgotten)
        return learner

    def learner(
        self, model: RenateModule, untrained: Mapping[str, Any], parent: State | None = None
    ) -> Learner:
        """Build the learner that `params.yaml` names, for a model and its untrained weights."""
        learner_class = registry.learner_class(self.params.learner)
        start = StartingPoint(model, untrained)
        if parent is not None and parent.has_model:
            weights = partial(read_tensors, parent.folder / MODEL_FILES[0])
            start = replace(start, has_parent=True, parent_weights=weights)
        if parent is not None:
            known = parent.provenance
            old_classes = known.classes or tuple(range(len(known.labels)))
            start = replace(start, old_classes=old_classes, grown=grown_tensors(model))
        context = UpdateContext(
            start,
            self.functions,
            self.params.trainer,
            self.params.update.task_id,
            self.generators,
            self.say,
        )
        known = hyperparameters_of(learner_class)
        own = {name: value for name, value in self.hyperparameters.items() if name in known}
        return learner_class(context, **own)
