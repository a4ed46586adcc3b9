"""`Learner`: the base class of all learners.

A learner sees datasets and tensors, never files. An update calls, in this order:

    restore_learner(...)           restore the state of the parent's learner
    start_update(new, memory)      receive the data of the update
    change_weights()               shrink, perturb or reinitialize the parent's weights, if asked to
    train_dataloader()             return the batches of an epoch to Lightning, as `StepBatch`es
    loss(batch)                    return the loss of one step
    after_step()                   react to an optimizer step
    end_training(measure)          finish the model after the last epoch: average, interpolate, solve
    choose_memory()                choose the examples to keep for later updates
    learner_state()                return what else the next update needs

Most strategies are this class or `ReplayLearner` with loss components; see `components.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.hooks import RemovableHandle

from renate_stages.data import ConcatStored, StepBatch, StoredDataset
from renate_stages.data.loading import StepLoader
from renate_stages.data.steps import EpochRows, Memory, Pass, RowSource, Steps
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.averaging import averaged_copy
from renate_stages.learners.base.component_state import ComponentState
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.continual_backprop import ContinualBackprop
from renate_stages.learners.base.fitting import Fitting
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.reading import Reading
from renate_stages.learners.base.warm_start import WarmStart
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.memory import Selection
from renate_stages.models import RenateModule
from renate_stages.models.features import backbone_of, hook_layers

NOTHING = np.empty(0, dtype=np.int64)


class Learner(Fitting):
    """Trains on the new data. Subclasses change the data and loss of a step, and what is kept.

    Args:
        context: The model, functions and settings that the update passes to the learner.
        batch_size: New examples per step, >= 1.
        ema_decay: Decay in [0, 1) of an exponential moving average of the weights over the steps,
            which becomes the updated model; 0 uses the last weights. After n steps the decay is at
            most n / (n + 1), so that untrained initial weights do not count.
        mask_unused_classes: Whether the training loss ignores the outputs of classes that no update
            has seen.
        shrink: Factor in (0, 1] of the parent's weights before the first step; see `WarmStart`.
        perturb: Factor >= 0 of the weights of a newly built model, which are added to them.
        reinitialize: Part of the model that starts from new weights: `none`, `head` (the last linear
            layer) or `all`.
        replacement_rate: Share in [0, 1] of the mature hidden units that a step replaces by new ones,
            the least useful first; 0: none. See `ContinualBackprop`. The paper uses 1e-5 to 1e-3.
        maturity_threshold: Steps before a unit may be replaced, >= 1.
        utility_decay: Decay in [0, 1) of the running average of a unit's utility.
    """

    max_epochs: ClassVar[int | None] = None  # a single-pass strategy sets 1
    min_epochs: ClassVar[int] = (
        1  # more for a learner that divides `trainer.max_epochs` into phases
    )
    steps_itself: ClassVar[bool] = False  # True: no shared batches and no gradient accumulation
    continues_training: ClassVar[bool] = True  # whether it trains the parent's weights further
    policy: Any = None  # a SelectionPolicy, which chooses the examples in memory; None: no memory

    def __init__(
        self,
        context: UpdateContext,
        batch_size: int = 32,
        ema_decay: float = 0.0,
        mask_unused_classes: bool = False,
        shrink: float = 1.0,
        perturb: float = 0.0,
        reinitialize: Literal["none", "head", "all"] = "none",
        replacement_rate: float = 0.0,
        maturity_threshold: int = 100,
        utility_decay: float = 0.99,
    ) -> None:
        super().__init__(context, mask_unused_classes)
        self.batch_size = positive("batch_size", batch_size)
        self.ema_decay = in_range("ema_decay", ema_decay, 0, 1, below=True)
        self.warm_start = WarmStart(shrink, perturb, reinitialize)
        replacing = ContinualBackprop(replacement_rate, maturity_threshold, utility_decay)
        if replacing.rate:
            self.components.append(replacing)
        self.average: AveragedModel | None = None
        self.reading = Reading(context.generators, context.trainer)
        self._hook: RemovableHandle | None = None
        self._component_state = ComponentState()
        self._steps = 0  # optimizer steps for which `after_step` was called

    # -- the course of an update ------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        """Receive the data of the update.

        Args:
            new: The new training examples, with the train transforms applied.
            memory: Past examples, with the memory transforms applied; may be empty.
            keepable: Rows of `new` that may enter the memory, int64; None: all.
        """
        self.new = new
        self.memory = memory
        self.keepable = np.arange(len(new)) if keepable is None else keepable
        self.classes = self.seen_classes(new, memory)
        if self.needs_layers:
            hook_layers(self.model)
        if self.ema_decay:
            self.average = averaged_copy(self.model, self.ema_decay)
        for component in self.parts:
            component.start_update(self)
        start = self.context.start
        for name in self._component_state.restore(self.parts, start.grown):
            self.context.say(f"the model has changed: {name} starts anew from the parent's")
        if self.needs_features:
            self._hook = backbone_of(self.model).register_forward_hook(self._features)

    def seen_classes(self, new: StoredDataset, memory: StoredDataset) -> list[int]:
        """Return the labels of this update and earlier ones, ascending; [] without labels.

        Args:
            new: The new training examples.
            memory: Past examples.
        """
        if not self.context.task.labelled:
            return []
        of_data = ((*(each.classes() or ()),) for each in (new, memory))
        return sorted({*self.context.start.old_classes}.union(*of_data))

    def change_weights(self) -> None:
        """Apply `shrink`, `perturb` and `reinitialize` to the parent's weights before the first step.

        It is called once, after `start_update`: teachers and anchors are copies of the parent's
        model, the moving average of the weights starts from the changed ones. A training that
        resumes from a checkpoint then loads the weights of the checkpoint.

        Raises:
            ModelMismatchError: If the model cannot be changed in this way.
        """
        self._change_weights()
        for component in self.parts:
            component.start_training(self)

    def _change_weights(self) -> None:
        start = self.context.start
        if not (self.warm_start.changes and start.has_parent):
            return
        if not self.continues_training or any(part.starts_anew for part in self.parts):
            self.context.say(
                f"{type(self).__name__} does not continue training the parent's weights: shrink, "
                "perturb and reinitialize have no effect"
            )
            return
        self.warm_start.apply(self.model, self.trained_parameters(), start.untrained)
        if self.ema_decay:
            self.average = averaged_copy(self.model, self.ema_decay)
        for component in self.parts:
            component.weights_changed(self)

    def train_dataloader(self) -> StepLoader:
        """Return the batches of one epoch: the new data, reshuffled every epoch."""
        return self.loader(self.new)

    def loader(
        self,
        dataset: StoredDataset | ConcatStored,
        memory: Memory | None = None,
        replay: RowSource | None = None,
        draws: int = 1,
        rows: np.ndarray | None = None,
    ) -> StepLoader:
        """Return steps over a dataset, with each example once per epoch; the last may be smaller.

        Args:
            dataset: Examples that count as new.
            memory: The memory to draw from.
            replay: Source of the rows of a draw; None draws nothing.
            draws: Number of draws per step.
            rows: Rows of the dataset to read, int64; None: all.
        """
        length = len(dataset) if rows is None else len(rows)
        order = Pass(length, self.batch_size, self.reading.order, replay, draws, rows)
        return self.step_loader(Steps(dataset, memory), order)

    def step_loader(self, steps: Steps, rows: EpochRows) -> StepLoader:
        """Return a loader of steps, with the loading settings of `trainer` in params.yaml."""
        return self.reading.loader(steps, rows, self.device)

    @property
    def datasets(self) -> list[StoredDataset]:
        """The datasets that training reads; `trainer.data_on_device` moves them to the device."""
        return [self.new]

    def position(self) -> dict[str, Any]:
        """Return the training's position in its data between two epochs: tensors and plain values.

        A learner that draws from other sources than `loader` adds their positions.
        """
        return dict(self.reading.position())

    def restore_position(self, position: Mapping[str, Any]) -> None:
        """Continue from what `position` returned; called after `start_update`, before training."""
        self.reading.continue_from(position)

    def training_step(self, batch: StepBatch, batch_idx: int) -> Tensor:
        """Return the loss of one step, a scalar.

        Raises:
            UnweightedLearnerError: If rows have weights, and the loss does not use them.
        """
        loss = self.loss(batch)
        self.check_weighted(batch.new)
        self._losses.add("loss", loss, len(batch.new.all_rows))
        return loss

    def loss(self, batch: StepBatch) -> Tensor:
        """Return the loss of one step: the loss on the new examples plus that of each component."""
        new = self.pass_on(batch.new)
        return self.with_components(self.supervised(new), new, None)

    def on_train_start(self) -> None:
        self._steps = self.trainer.global_step

    def on_train_batch_end(self, *_: Any) -> None:
        if self.context.trainer.accumulate_grad_batches > 1:
            taken, self._steps = self._steps, self.trainer.global_step
            if taken == self._steps:  # gradients were only accumulated
                return
        self.after_step()

    def after_step(self) -> None:
        """Update the average and the components after an optimizer step."""
        if self.average is not None:
            self.average.update_parameters(self.model)
        for component in self.parts:
            component.after_step(self)

    def end_training(self, measure: Measure | None) -> None:
        """Finish the model after the last epoch.

        Args:
            measure: Measures a model on all validation data; None without validation data.
        """
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
            self.average = None
        self.finish_model(measure)
        for component in self.parts:
            component.end_training(self)
        if self._hook is not None:
            self._hook.remove()

    def finish_model(self, measure: Measure | None) -> None:
        """Change the trained weights, before components use them; the base changes nothing.

        Args:
            measure: As in `end_training`.
        """

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        """Return which rows of the old memory stay and which new ones enter; the base keeps none.

        Args:
            at_once: Whether to choose without training, for learners that choose during training.
        """
        return ChosenMemory(Selection(kept=NOTHING, added=NOTHING))

    def lose_rows(self, memory_rows: np.ndarray) -> None:
        """Drop what the learner stores about rows that were removed from the memory.

        It is called before `forget`, and only if rows were removed.

        Args:
            memory_rows: For each row of the memory that the parent's learner left, whether it is
                still there, bool.
        """
        if self.policy is not None:
            self.policy.forget(memory_rows)

    def forget(self, examples: StoredDataset) -> None:
        """Remove what was learned from examples; called before `start_update`, if needed.

        Gradient steps cannot be undone, so the base does nothing.

        Args:
            examples: Examples of the parent's memory to forget; `start_update` does not receive
                them.
        """

    def tables(self) -> dict[str, list[dict[str, float]]]:
        """Return figures of this update for plots: rows by file name."""
        return {}

    @property
    def resumes(self) -> bool:
        """Whether training can resume between two epochs with bit-identical results."""
        return True

    @property
    def keeps_tensors(self) -> bool:
        """Whether the learner keeps tensors of examples that cannot be found by example id."""
        return False

    @property
    def served(self) -> RenateModule:
        """The model that would be served if training ended now."""
        return self.average.module if self.average is not None else self.model  # type: ignore

    @property
    def measured(self) -> RenateModule:
        """The model that is measured after an epoch."""
        return self.served

    @property
    def is_final(self) -> bool:
        """Whether `measured` is the model to serve; if not, the epoch is never kept as the best."""
        return True

    # -- state between updates --------------------------------------------------------------------

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state for the next update: tensors, and values that JSON can represent."""
        return self._component_state.tensors(self.parts), {"learner": type(self).__name__}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore what the parent's learner, of this or another class, returned as its state."""
        self._component_state.receive(tensors)
        wrote = values.get("learner")
        if wrote is not None and wrote != type(self).__name__:
            self.context.say(f"the parent's learner was {wrote}: what fits of its state is used")


def hyperparameters_of(learner: type[Learner]) -> dict[str, inspect.Parameter]:
    """Return the hyperparameters of a learner and its bases, by name."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(learner.__mro__):
        if issubclass(base, Learner) and "__init__" in vars(base):
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind is not parameter.VAR_KEYWORD:
                    found[parameter.name] = parameter
    return {name: each for name, each in found.items() if name not in ("self", "context")}
