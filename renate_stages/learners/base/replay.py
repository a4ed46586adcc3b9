"""`ReplayLearner`: the base class of learners that train on new and remembered examples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from renate_stages.data import Batch, StepBatch, StoredDataset, concatenate
from renate_stages.data.loading import StepLoader
from renate_stages.data.ranks import gathered, ranks
from renate_stages.data.steps import RandomRows, distinct_rows, read_share
from renate_stages.errors import RaggedOutputsError
from renate_stages.learners.base.arguments import one_of, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.policy import fit_policy, policy_of, restore_policy, select
from renate_stages.learners.base.working_memory import BLOCK, ChosenMemory, Fields, WorkingMemory
from renate_stages.models.features import features_of
from renate_stages.models.modes import evaluating

MEMORY_UPDATES = ("end", "online")
FORWARDS = ("joint", "separate")


class ReplayLearner(Learner):
    """Keeps a bounded memory of past examples and draws replay batches from it.

    Args:
        context: The model, functions and settings of the update.
        memory_size: Maximum number of examples to keep, >= 1, or of bytes, such as "20GB".
        memory_batch_size: Replayed examples per step and draw, >= 1.
        memory_policy: Which examples stay, a name in `memory.policies.POLICIES`.
        memory_update: When new examples enter: at the `end` of the update; or `online`, batch by
            batch during the first epoch, as in the papers' single-pass streams, so that they are
            replayed in the same update. Each example is offered once in either case.
        replay_forward: Whether new and remembered examples go through the model as one batch
            (`joint`) or in separate passes (`separate`). This affects batch norm and speed.
        base: Hyperparameters of `Learner`.
    """

    trained_rows: np.ndarray | None = None  # rows of the new data to train on; None: all
    replayed_rows: np.ndarray | None = None  # rows of the memory to replay, with `end`; None: all

    def __init__(
        self,
        context: UpdateContext,
        memory_size: int | str = 1000,
        memory_batch_size: int = 32,
        memory_policy: str = "reservoir",
        memory_update: Literal["end", "online"] = "end",
        replay_forward: Literal["joint", "separate"] = "joint",
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.memory_batch_size = positive("memory_batch_size", memory_batch_size)
        self.memory_update = one_of("memory_update", memory_update, MEMORY_UPDATES)
        self.replay_forward = one_of("replay_forward", replay_forward, FORWARDS)
        self.memory_size = memory_size
        self._together: list[ForwardResult] = []  # the last joint forward pass
        self.policy = policy_of(memory_policy, memory_size, context)
        if memory_update == "online" and not self.policy.online:
            able = "memory_policy: reservoir, class_balanced, greedy or infinite"
            one_of("memory_update", memory_update, [f"end with {memory_policy}", able])

    # -- the steps of an update -------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        spec = new.store.spec
        targets = spec.fields.get("targets") if spec is not None else None
        if "logits" in self.memory_fields and targets is not None and targets.ragged:
            raise RaggedOutputsError(type(self).__name__)
        super().start_update(new, memory, keepable)
        fit_policy(self.policy, self.memory_size, memory, new)
        self._as_replayed = StoredDataset(
            new.store, new.rows, *self.context.functions.memory_transforms
        )
        self.working = WorkingMemory(
            memory, self._as_replayed, self.memory_fields, self.replayed_field
        )
        self._remember_what_is_missing()
        self._may_be_kept = np.isin(np.arange(len(new)), self.keepable)
        self._replay: RandomRows | None = None
        if self.memory_update == "online":
            self.working.shrink(self.policy)
            self._draws = self.context.generators.torch("replay")
        elif len(memory):
            draws = self.context.generators.torch("replay")
            rows = self.replayed_rows
            number = len(memory) if rows is None else len(rows)
            self._replay = RandomRows(number, self.rows_per_draw, draws, rows)
        self._first_epoch = True

    @property
    def memory_fields(self) -> list[str]:
        """Names of the fields that are stored with each example."""
        return [name for component in self.parts for name in component.memory_fields]

    @property
    def replayed_field(self) -> str | None:
        """The field that is replayed in place of the inputs; None: the inputs."""
        return None

    @property
    def rows_per_draw(self) -> int:
        """Number of examples of a draw, if the memory has as many."""
        return self.memory_batch_size

    @property
    def draws_a_step(self) -> int:
        """Number of draws from the memory per step."""
        replaying = [component for component in self.active if component.replays]
        return 1 + sum(component.own_draw for component in replaying[1:])

    def train_dataloader(self) -> StepLoader:
        rows = self.trained_rows
        if self._replay is None:
            return self.loader(self.new, rows=rows)
        return self.loader(self.new, self.working, self._replay, self.draws_a_step, rows)

    @property
    def datasets(self) -> list[StoredDataset]:
        replayed = (
            [self.memory, self._as_replayed] if self.memory_update == "online" else [self.memory]
        )
        return [*super().datasets, *replayed]

    def loss(self, batch: StepBatch) -> Tensor:
        """Return the loss of one step: the loss on new examples plus all components."""
        drawn = self._drawn_online() if self.memory_update == "online" else batch.memory
        new, draws = self.pass_all(batch.new, drawn)
        if self.memory_update == "online" and self._first_epoch:
            self._take_in(new)
        return self.total(new, draws)

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        """Return the loss from the model's outputs.

        Args:
            new: The new batch.
            draws: The draws from the memory; empty if there is nothing to replay.
        """
        return self.with_components(self.supervised(new), new, draws)

    def pass_all(
        self, new: Batch, drawn: tuple[Batch, ...]
    ) -> tuple[ForwardResult, list[ForwardResult]]:
        """Run the new batch and the draws through the model, in one pass or in separate ones."""
        if not drawn:
            return self.pass_on(new), []
        if self.replay_forward == "separate":
            return self.pass_on(new), [self.pass_on(each) for each in drawn]
        batches = [new, *drawn]
        sizes = [max(1, len(each)) for each in batches]  # an empty share has one placeholder row
        left_out = [sum(sizes[:n]) for n, each in enumerate(batches) if each.is_placeholder]
        whole = self.pass_together(batches, left_out)
        self._together[:] = [whole]
        outputs = whole.outputs.split(sizes)
        features = (
            whole.features.split(sizes) if whole.features is not None else [None] * len(sizes)
        )
        fitted = [
            each.with_targets(self.context.task.fitted(given, each.targets))
            for each, given in zip(batches, outputs, strict=True)
        ]
        split = [each.split(sizes) for each in whole.layers]
        layers = list(zip(*split, strict=True)) or [()] * len(sizes)
        passed = [
            ForwardResult(*each) for each in zip(fitted, outputs, features, layers, strict=True)
        ]
        return passed[0], passed[1:]

    def pass_together(self, batches: list[Batch], left_out: list[int]) -> ForwardResult:
        """Run the new batch and the draws through the model as one batch.

        Args:
            batches: The new batch, then the draws.
            left_out: Placeholder rows, as in `pass_on`.
        """
        inputs = concatenate([each.inputs for each in batches])
        return self.pass_on(Batch(inputs, None, batches[0].rows), left_out)

    def on_train_epoch_end(self) -> None:
        self._first_epoch = False

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        """Return which rows of the old memory stay and which new rows enter.

        Each new example enters at most once, whatever the number of epochs.
        """
        if self.memory_update == "online" and not at_once:
            return self.working.chosen()
        candidates = StoredDataset(
            self.new.store, self.keepable, *self.context.functions.test_transforms
        )
        selection = select(self.policy, self.memory, candidates, self.model, self.context.task_id)
        selection = selection._replace(added=self.keepable[selection.added])
        added = self.fields_of(self.new, selection.added)
        return self.working.at_end(selection, added)

    # -- fields that are stored with examples ------------------------------------------------------

    def remember(self, passed: ForwardResult) -> Fields:
        """Return the fields to store with each example of a batch."""
        fields: Fields = {}
        for component in self.parts:
            fields |= component.remember(passed)
        return fields

    def _remember_what_is_missing(self) -> None:
        """Compute fields that the memory lacks, for example after another learner, with the model."""
        if not self.memory_fields or not len(self.memory):
            return
        compute = partial(self._fields_of, self.memory)
        shapes = {name: each.shape[1:] for name, each in compute(np.zeros(1, np.int64)).items()}
        missing = self.working.complete(shapes, compute, self.outdated_fields())
        if missing:
            names = " and ".join(self.memory_fields)
            self.context.say(
                f"computed {names} of {missing} remembered examples with the parent's model"
            )

    def outdated_fields(self) -> list[str]:
        """Return the fields whose stored values do not fit the model, to be computed again."""
        return []

    def fields_of(self, examples: StoredDataset, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the model's fields of examples, with their test transforms, by name, `(n, ...)`.

        Args:
            examples: The new data or the memory.
            rows: Rows of them, int64 `(n,)`.
        """
        if not self.memory_fields or not len(rows):
            return {}
        blocks = [
            self._fields_of(examples, rows[start : start + BLOCK])
            for start in range(0, len(rows), BLOCK)
        ]
        return {
            name: torch.cat([block[name] for block in blocks]).cpu().numpy()
            for name in self.memory_fields
        }

    def _fields_of(self, examples: StoredDataset, rows: np.ndarray) -> Fields:
        """Return the model's fields of examples, in evaluation mode with the test transforms."""
        batch = self.plain(examples, rows)
        with torch.no_grad(), evaluating(self.model):
            features = None
            if self.needs_features:
                features = features_of(self.model, batch.inputs, self.context.task_id)
            outputs = self(batch.inputs)
            passed = ForwardResult(batch, outputs, features, self.layers_of_last_call())
            return {name: each.cpu() for name, each in self.remember(passed).items()}

    def plain(self, examples: StoredDataset, rows: np.ndarray) -> Batch:
        """Return examples with the test transforms, which use no random numbers."""
        transforms = self.context.functions.test_transforms
        plain = StoredDataset(examples.store, examples.rows, *transforms)
        return self.moved(Batch.of(plain, rows))

    def plain_members(self, places: np.ndarray) -> Batch:
        """Return the members of the memory at some places, as `plain` does."""
        return self.moved(self.working.read_with(self.context.functions.test_transforms, places))

    # -- online -----------------------------------------------------------------------------------

    def _drawn_online(self) -> tuple[Batch, ...]:
        """Return draws from the current memory, each without repeated examples."""
        members = len(self.working)
        if not members:
            return ()
        size = min(self.rows_per_draw, members)
        drawn = [distinct_rows(members, size, self._draws) for _ in range(self.draws_a_step)]
        read = self.working.read
        return tuple(self.moved(read_share(read, places, ranks())) for places in drawn)

    def _take_in(self, new: ForwardResult) -> None:
        """Offer a new batch to the memory."""
        rows = new.batch.all_rows  # so that every process has the same memory
        fits = self._may_be_kept[rows]
        fields = self.remember_online(new)
        if not fits.all():
            fields = {name: each[torch.from_numpy(fits)] for name, each in fields.items()}
        self.offer(rows[fits], fields)

    def remember_online(self, new: ForwardResult) -> Fields:
        """Return the fields to store with the new examples of all processes."""
        return gathered(self.remember(new), len(new.batch.all_rows))

    def offer(self, rows: np.ndarray, fields: Fields) -> None:
        """Let new examples enter the memory during training, as the policy chooses.

        Args:
            rows: Rows of the new data that may enter, int64 `(n,)`.
            fields: Their fields, by name, `(n, ...)`.
        """
        self.working.offer(self.policy, rows, fields)

    # -- state ------------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        own: dict[str, Any] = {"first_epoch": False}
        if self._replay is not None:
            own["replay"] = self._replay.state_dict()
        if self.memory_update == "online":
            own["working"] = self.working.state_dict()
            own["policy"] = self.policy.state()
            own["draws"] = self._draws.get_state()
        return {**super().position(), **own}

    def restore_position(self, position: Mapping[str, Any]) -> None:
        super().restore_position(position)
        self._first_epoch = position["first_epoch"]
        if self._replay is not None:
            self._replay.load_state_dict(position["replay"])
        if self.memory_update == "online":
            self.working.load_state_dict(position["working"])
            self.policy.restore(position["policy"])
            self._draws.set_state(position["draws"])

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        return tensors, {**values, "policy": self.policy.state()}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().restore_learner(tensors, values)
        restore_policy(self.policy, values)


def own(*passed: ForwardResult) -> list[ForwardResult]:
    """Return the results to average over: all but the placeholders of empty shares.

    If all are placeholders, return the first one, whose mean then has weight 0.
    """
    return [result for result in passed if not result.batch.is_placeholder] or [passed[0]]
