"""Run one update of an Avalanche strategy inside Lightning.

The strategy and its training step are Avalanche's own code: Lightning passes a batch of the
strategy's loader, and we call `training_epoch` with a loader of that one batch. Everything between
steps (precision, clipping, schedule, validation, curves, checkpoints) works as for other learners.
With equal seeds the weights are bit-identical to those of Avalanche alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from renate_stages.data import StoredDataset
from renate_stages.errors import (
    AvalancheRefusedError,
    AvalancheStateError,
    ClassLabelsNeededError,
    InvalidHyperparameterError,
    NotFiniteError,
)
from renate_stages.learners.avalanche import tables
from renate_stages.learners.avalanche.catalog import REQUIRED, Argument, Composed
from renate_stages.learners.base import NOTHING, Learner
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.memory import Selection
from renate_stages.models.feature_classifier import give_nearest_mean

PRECISIONS = ("32", "32-true", "bf16-mixed")
STATE = "avalanche"  # prefix of the strategy's tensors in the learner's state


class AvalancheLearner(Learner):
    """An Avalanche strategy with its plugins; `naming` makes the subclass for a name.

    Args:
        context: The model, functions and settings of the update.
        values: Hyperparameters of `Learner`, and of the strategy and its plugins.

    Raises:
        InvalidHyperparameterError: If a hyperparameter is missing or outside its range.
        AvalancheRefusedError: If Avalanche does not support a setting.
    """

    composed: ClassVar[Composed]
    steps_itself = True
    weights_rows = False

    def __init__(self, context: UpdateContext, **values: Any) -> None:
        own = {name: values.pop(name) for name in self.composed.arguments if name in values}
        super().__init__(context, **values)
        self.automatic_optimization = False
        self.values = {
            name: _checked(name, own.get(name, argument.default), argument)
            for name, argument in self.composed.arguments.items()
        }
        self._refuse()
        self._strategy: Any = None
        self._stored: dict[str, Any] = {}  # JSON part of the parent's state
        self._tensors: dict[str, Tensor] = {}
        self._position: Mapping[str, Any] | None = None
        self._encoded: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._chosen = ChosenMemory(Selection(kept=NOTHING, added=NOTHING))
        self._open = False  # whether an epoch is in progress

    @property
    def resumes(self) -> bool:
        return all(part.repeats for part in self.composed.parts.values())

    def _refuse(self) -> None:
        """Reject settings that the strategy would silently ignore."""
        context, name = self.context, type(self).__name__
        context.require_labels(name)  # Avalanche's plugins take targets for labels of a softmax
        if self.warm_start.changes or len(self.components):
            raise AvalancheRefusedError(
                name,
                "shrink, perturb, reinitialize or replacement_rate",
                "its plugins may copy the model after the weights were changed, and would then not "
                "have the parent's model",
                "remove these hyperparameters, or choose a learner of renate_stages",
            )
        if self.mask_unused_classes:
            raise AvalancheRefusedError(
                name,
                "mask_unused_classes",
                "Avalanche's strategies call the loss themselves",
                "remove this setting, or mask in loss_fn",
            )
        own = [each for each, part in self.composed.parts.items() if part.own_loss]
        if own and not context.functions.loss_fn.is_cross_entropy:
            raise AvalancheRefusedError(
                name,
                "a loss_fn other than plain cross-entropy",
                f"{own[0]} has its own loss and would not call loss_fn",
                "remove loss_fn from renate_config.py, or choose another learner",
            )
        if context.trainer.precision not in PRECISIONS:
            raise AvalancheRefusedError(
                name,
                f"trainer.precision {context.trainer.precision}",
                "its plugins read and change gradients, which must be neither scaled nor of "
                "another type than the weights",
                f"set it to one of {', '.join(PRECISIONS[1:])}",
            )

    # -- the steps of an update -------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        labels = new.labels()
        if labels is None:
            raise ClassLabelsNeededError(type(self).__name__, "not one integer each")
        super().start_update(new, memory, keepable)
        if self.composed.strategy == "iCaRL":
            give_nearest_mean(self.model, "iCaRL")

    def train_dataloader(self) -> Any:
        if self._strategy is None:
            with _quiet():
                self._begin()
        return _Batches(self._strategy)

    def _begin(self) -> None:
        """Build the strategy, restore the parent's state, and prepare it for the new data.

        The updater has just seeded the global generators, from which Avalanche draws.
        """
        from renate_stages.learners.avalanche.building import Run  # imports Avalanche

        initial = {
            name: each.clone() for name, each in self.model.state_dict().items() if _is(each)
        }
        run = self._run = Run(self)
        self._strategy = strategy = run.strategy
        run.start_from(self._stored, self._tensors)
        strategy.is_training, strategy._stop_training = True, False
        strategy.model.train()
        strategy._before_training()
        strategy.experience = run.experience
        strategy._before_training_exp(num_workers=self.context.trainer.num_workers)
        run.say_if_nothing_is_replayed()
        if strategy.model is not run.model:
            raise AvalancheStateError(
                f"{type(self).__name__} replaces the model that it was given",
                "choose a strategy that trains the given model",
            )
        if self._position is not None:  # resumes: undo the changes of the preparation above
            run.restore(self._position["stored"], self._position["tensors"])
            self.model.load_state_dict(self.model.state_dict() | initial)

    def on_train_epoch_start(self) -> None:
        self._strategy._before_training_epoch()
        self._open = True

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Let the strategy take its step with one batch of its loader."""
        strategy = self._strategy
        strategy.dataloader = [batch]
        strategy.training_epoch()
        if strategy._stop_training:  # a plugin requests the end of training
            self.trainer.should_stop = True
        self._losses.add("loss", strategy.loss.detach().reshape(()), len(batch[0]))
        if batch_idx + 1 == len(self.trainer.train_dataloader):  # type: ignore[arg-type]
            self._end_epoch()
            self._follow_schedule("epoch")

    def backward_of_step(self) -> None:
        """Compute the gradients of the strategy's loss."""
        self.manual_backward(self._strategy.loss, retain_graph=self._strategy.retain_graph)

    def optimizer_step_of_step(self) -> None:
        """Clip the gradients, then step the optimizer and the scheduler."""
        optimizer: Any = self.optimizers()
        if self.context.trainer.gradient_clip_val is not None:
            algorithm = self.context.trainer.gradient_clip_algorithm
            self.clip_gradients(optimizer, self.context.trainer.gradient_clip_val, algorithm)
        optimizer.step()
        self._follow_schedule("step")

    def _end_epoch(self) -> None:
        self._open = False
        self._strategy._after_training_epoch()

    def _follow_schedule(self, interval: str) -> None:
        given = self.context.functions.lr_scheduler_fn
        if given is not None and given[1] == interval:
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def finish_model(self, measure: Measure | None) -> None:
        strategy = self._strategy
        with _quiet():
            if self._open:  # training stopped within an epoch
                self._end_epoch()
            strategy._after_training_exp(num_workers=self.context.trainer.num_workers)
            strategy._after_training()
            strategy._train_cleanup()
        self._run.finish()
        self._encoded = self._run.encode()
        self._check_finite(self._encoded[1])

    def _check_finite(self, tensors: Mapping[str, Tensor]) -> None:
        """Check that weights and state are finite, because others would spoil all later updates.

        Raises:
            NotFiniteError: If a tensor has a value that is not finite.
        """
        weights = {n: each for n, each in self.model.state_dict().items() if _is(each)}
        for name, each in {**weights, **tensors}.items():
            if each.is_floating_point() and not bool(each.isfinite().all()):
                raise NotFiniteError(self._strategy.clock.train_exp_epochs, name)

    # -- the memory -------------------------------------------------------------------------------

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        """Return the rows that the strategy's buffers hold."""
        if self._encoded is None:  # the memory was chosen before, or nothing was trained
            return self._chosen
        stored, tensors = self._encoded
        old, count = len(self.memory), len(self.memory) + len(self.new)
        is_kept = np.ones(count, dtype=bool)
        is_kept[old:] = np.isin(np.arange(len(self.new)), self.keepable)
        rows = tables.rows_in(stored, tensors)
        if removed := int((~is_kept[rows]).sum()):
            self.context.say(f"removed {removed} examples on the forget list from the buffers")
        rows = rows[is_kept[rows]]
        number = np.full(count, -1, dtype=np.int64)
        number[rows] = np.arange(len(rows))
        self._stored, self._tensors = stored, dict(tensors)
        tables.renumber(self._stored, self._tensors, number)
        self._encoded = None
        self._chosen = ChosenMemory(Selection(rows[rows < old], rows[rows >= old] - old))
        return self._chosen

    def lose_rows(self, memory_rows: np.ndarray) -> None:
        number = np.where(memory_rows, np.cumsum(memory_rows) - 1, -1).astype(np.int64)
        tables.renumber(self._stored, self._tensors, number)

    @property
    def keeps_tensors(self) -> bool:
        """Whether the state has tensors of examples, as GEM's does."""
        parts = self.composed.parts.values()
        return bool(self._tensors) and any("tensors" in part.keeps for part in parts)

    def forget(self, examples: StoredDataset) -> None:
        """Check that the strategy stores no tensors of examples, which cannot be forgotten.

        Raises:
            AvalancheStateError: If it does.
        """
        for name, part in self.composed.parts.items():
            if self.keeps_tensors and "tensors" in part.keeps:
                raise AvalancheStateError(
                    f"Avalanche's {name} stores tensors of examples without their ids, so no "
                    "example can be found and forgotten there",
                    "train the next update with a learner that keeps its examples in the memory",
                )

    # -- state ------------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        stored, tensors = self._run.encode()
        return {**super().position(), "stored": stored, "tensors": tensors}

    def restore_position(self, position: Mapping[str, Any]) -> None:
        super().restore_position(position)
        self._position = position

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        own = {f"{STATE}.{name}": each for name, each in self._tensors.items()}
        return {**tensors, **own}, {**values, STATE: self._stored}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        begins = f"{STATE}."
        self._stored = dict(values.get(STATE, {}))
        self._tensors = {
            name.removeprefix(begins): each
            for name, each in tensors.items()
            if name.startswith(begins)
        }
        others = {name: each for name, each in tensors.items() if not name.startswith(begins)}
        super().restore_learner(others, values)

    # -- Lightning --------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        optimizers = super().configure_optimizers()
        self.own_optimizer = optimizers[0][0] if isinstance(optimizers, tuple) else optimizers
        return optimizers

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        return batch  # the strategy moves it

    def num_examples(self, batch: Any) -> int:
        return len(batch[0])


class _Batches:
    """Iterates over the batches of the strategy's loader, one epoch at a time."""

    def __init__(self, strategy: Any) -> None:
        self._loader = strategy.dataloader  # kept, because each step replaces the attribute

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        # Lightning creates an extra iterator, and the loader's own would draw on creation.
        yield from self._loader


def _checked(name: str, value: Any, argument: Argument) -> Any:
    """Check and return an argument's value.

    Raises:
        InvalidHyperparameterError: If it is missing or outside its range.
    """
    if value is REQUIRED:
        raise InvalidHyperparameterError(name, None, f"a number >= {argument.least:g}")
    if value is None or argument.least is None:
        return value
    return positive(name, value) if argument.least == 1 else in_range(name, value, argument.least)


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop warnings raised in Avalanche's code; it sets filters that would override ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if "avalanche" not in Path(warning.filename).parts:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
