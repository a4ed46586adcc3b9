"""Run one update of a strategy of Avalanche inside Lightning.

The strategy is Avalanche's own object, and so is what it does in a step: Lightning gives a batch of
the strategy's loader, and `training_epoch` is called with a loader of that one batch. What Lightning
does between steps (precision, clipping, schedule, validation, curves, checkpoints) stays as it is
for every learner. Equal seeds give the bits that Avalanche gives alone.
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
from renate_stages.user.optimization import is_cross_entropy

PRECISIONS = ("32", "32-true", "bf16-mixed")
STATE = "avalanche"  # begins the names of the strategy's tensors


class AvalancheLearner(Learner):
    """A strategy of Avalanche with its plugins; `naming` makes the class of a name.

    Args:
        context: What the update gives.
        values: Hyperparameters of `Learner`, and of the strategy and its plugins.

    Raises:
        InvalidHyperparameterError: If one is missing, or outside its range.
        AvalancheRefusedError: If Avalanche cannot do what is asked for.
    """

    composed: ClassVar[Composed]
    steps_itself = True

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
        self._stored: dict[str, Any] = {}  # JSON of what the parent's learner left
        self._tensors: dict[str, Tensor] = {}
        self._position: Mapping[str, Any] | None = None
        self._encoded: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._chosen = ChosenMemory(Selection(kept=NOTHING, added=NOTHING))
        self._open = False  # whether an epoch has begun and not ended

    @property
    def resumes(self) -> bool:
        return all(part.repeats for part in self.composed.parts.values())

    def _refuse(self) -> None:
        """Refuse what the strategy would pass over in silence."""
        context, name = self.context, type(self).__name__
        if self.mask_unused_classes:
            raise AvalancheRefusedError(
                name,
                "mask_unused_classes",
                "Avalanche's strategies call the loss themselves",
                "remove this setting, or mask in loss_fn",
            )
        own = [each for each, part in self.composed.parts.items() if part.own_loss]
        if own and not is_cross_entropy(context.functions.loss_fn):
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

    # -- the course of an update ------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        found = new.labels()
        if found is None:
            raise ClassLabelsNeededError(type(self).__name__, "not one integer each")
        super().start_update(new, memory, keepable)
        if self.composed.strategy == "iCaRL":
            give_nearest_mean(self.model)

    def train_dataloader(self) -> Any:
        if self._strategy is None:
            with _quiet():
                self._begin()
        return _Batches(self._strategy)

    def _begin(self) -> None:
        """Build the strategy, give back what the parent's learner left, let it look at the data.

        The updater has seeded the global generators just before; Avalanche draws from these.
        """
        from renate_stages.learners.avalanche.building import Run  # Avalanche comes in here

        came = {name: each.clone() for name, each in self.model.state_dict().items() if _is(each)}
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
        if self._position is not None:  # a training that goes on: as it was, whatever was drawn
            run.restore(self._position["stored"], self._position["tensors"])
            self.model.load_state_dict(self.model.state_dict() | came)

    def on_train_epoch_start(self) -> None:
        self._strategy._before_training_epoch()
        self._open = True

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Let the strategy take its step with one batch of its loader."""
        strategy = self._strategy
        strategy.dataloader = [batch]
        strategy.training_epoch()
        if strategy._stop_training:  # a plugin asks for it
            self.trainer.should_stop = True
        self._losses.add("loss", strategy.loss.detach().reshape(()), len(batch[0]))
        if batch_idx + 1 == len(self.trainer.train_dataloader):  # type: ignore[arg-type]
            self._end_epoch()
            self._follow_schedule("epoch")

    def backward_of_step(self) -> None:
        """Compute the gradients of the strategy's loss."""
        self.manual_backward(self._strategy.loss, retain_graph=self._strategy.retain_graph)

    def optimizer_step_of_step(self) -> None:
        """Clip the gradients, step, and let the schedule follow."""
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
            if self._open:  # the last step was not an epoch's last
                self._end_epoch()
            strategy._after_training_exp(num_workers=self.context.trainer.num_workers)
            strategy._after_training()
            strategy._train_cleanup()
        self._run.finish()
        self._encoded = self._run.encode()
        self._check_finite(self._encoded[1])

    def _check_finite(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse weights and importances that are no numbers: they would spoil every later update.

        Raises:
            NotFiniteError: If there are any.
        """
        weights = {n: each for n, each in self.model.state_dict().items() if _is(each)}
        for name, each in {**weights, **tensors}.items():
            if each.is_floating_point() and not bool(each.isfinite().all()):
                raise NotFiniteError(self._strategy.clock.train_exp_epochs, name)

    # -- the memory -------------------------------------------------------------------------------

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        """Return the rows that the strategy's buffers hold."""
        if self._encoded is None:  # asked before, or nothing was trained
            return self._chosen
        stored, tensors = self._encoded
        old, count = len(self.memory), len(self.memory) + len(self.new)
        may = np.ones(count, dtype=bool)
        may[old:] = np.isin(np.arange(len(self.new)), self.keepable)
        rows = tables.rows_in(stored, tensors)
        if lost := int((~may[rows]).sum()):
            self.context.say(f"{lost} examples that are to be forgotten leave the buffers")
        rows = rows[may[rows]]
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
        """Whether GEM has."""
        parts = self.composed.parts.values()
        return bool(self._tensors) and any("tensors" in part.keeps for part in parts)

    def forget(self, examples: StoredDataset) -> None:
        """Refuse where the strategy keeps tensors of examples, out of which none can be taken.

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

    def take_position(self, position: Mapping[str, Any]) -> None:
        super().take_position(position)
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
        made = super().configure_optimizers()
        self.own_optimizer = made[0][0] if isinstance(made, tuple) else made
        return made

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        return batch  # the strategy moves it

    def num_examples(self, batch: Any) -> int:
        return len(batch[0])


class _Batches:
    """The batches of the strategy's loader, an epoch at a time."""

    def __init__(self, strategy: Any) -> None:
        self._loader = strategy.dataloader  # a step puts another in its place

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        # Not the loader's own iterator, which draws as soon as it is made: Lightning makes one more.
        yield from self._loader


def _checked(name: str, value: Any, argument: Argument) -> Any:
    """Return an argument's value.

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
    """Silence what Avalanche warns of in its own code; it sets filters, so none of ours would do."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield
    for each in heard:
        if "avalanche" not in Path(each.filename).parts:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
