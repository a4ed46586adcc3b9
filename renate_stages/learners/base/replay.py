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
from renate_stages.data.steps import RandomRows, read_share
from renate_stages.learners.base.arguments import one_of, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.policy import fit_policy, policy_of, restore_policy, select
from renate_stages.learners.base.working_memory import BLOCK, ChosenMemory, Fields, WorkingMemory
from renate_stages.models.features import features_of

MEMORY_UPDATES = ("end", "online")
FORWARDS = ("joint", "separate")


class ReplayLearner(Learner):
    """Keeps a bounded memory of past examples and draws replay batches from it.

    Args:
        context: What the update gives.
        memory_size: Most examples to keep, >= 1, or their bytes, such as "20GB".
        memory_batch_size: Replayed examples per step and draw, >= 1.
        memory_policy: Which examples stay, a name in `memory.policies.POLICIES`.
        memory_update: When new examples enter: at the `end` of the update, each once however many
            epochs there were; or `online`, batch by batch in the first epoch, as in the papers'
            streams of one pass, so that they are replayed in the same update.
        replay_forward: Whether new and remembered examples go through the model as one batch
            (`joint`) or one after the other (`separate`). It matters for batch norm, and for speed.
        base: Hyperparameters of `Learner`.
    """

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
        self._together: list[Tensor] = []  # outputs of the latest joint pass
        self.policy = policy_of(memory_policy, memory_size, context)
        if memory_update == "online" and not self.policy.online:
            able = "memory_policy: reservoir, class_balanced, greedy or infinite"
            one_of("memory_update", memory_update, [f"end with {memory_policy}", able])

    # -- the course of an update ------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        fit_policy(self.policy, self.memory_size, memory, new)
        self._as_replayed = StoredDataset(
            new.store, new.rows, *self.context.functions.memory_transforms
        )
        self.working = WorkingMemory(memory, self._as_replayed, self.memory_fields)
        self._remember_what_is_missing()
        self._may_be_kept = np.isin(np.arange(len(new)), self.keepable)
        self._replay: RandomRows | None = None
        if self.memory_update == "online":
            self.working.shrink(self.policy)
            self._draws = self.context.generators.torch("replay")
        elif len(memory):
            draws = self.context.generators.torch("replay")
            self._replay = RandomRows(len(memory), self.memory_batch_size, draws)
        self._first_epoch = True

    @property
    def memory_fields(self) -> list[str]:
        """Names of what is kept beside each example."""
        return [name for component in self.parts for name in component.memory_fields]

    @property
    def draws_a_step(self) -> int:
        """How many draws from the memory a step takes."""
        replaying = [component for component in self.active if component.replays]
        return 1 + sum(component.own_draw for component in replaying[1:])

    def train_dataloader(self) -> StepLoader:
        if self._replay is None:
            return self.loader(self.new)
        return self.loader(self.new, self.working, self._replay, self.draws_a_step)

    @property
    def datasets(self) -> list[StoredDataset]:
        replayed = (
            [self.memory, self._as_replayed] if self.memory_update == "online" else [self.memory]
        )
        return [*super().datasets, *replayed]

    def loss(self, batch: StepBatch) -> Tensor:
        """Return the loss of one step: that of the new examples and of each component."""
        drawn = self._drawn_online() if self.memory_update == "online" else batch.memory
        new, draws = self.pass_all(batch.new, drawn)
        if self.memory_update == "online" and self._first_epoch:
            self._take_in(new)
        return self.total(new, draws)

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        """Return the loss of what went through the model.

        Args:
            new: The new batch.
            draws: The draws from the memory; empty where there is nothing to replay.
        """
        return self.with_components(self.supervised(new), new, draws)

    def pass_all(
        self, new: Batch, drawn: tuple[Batch, ...]
    ) -> tuple[ForwardResult, list[ForwardResult]]:
        """Put the new batch and the draws through the model, together or one after the other."""
        if not drawn:
            return self.pass_on(new), []
        if self.replay_forward == "separate":
            return self.pass_on(new), [self.pass_on(each) for each in drawn]
        batches = [new, *drawn]
        inputs = concatenate([each.inputs for each in batches])
        sizes = [max(1, len(each)) for each in batches]  # with what stands in
        left_out = [sum(sizes[:n]) for n, each in enumerate(batches) if each.stands_in]
        whole = self.pass_on(Batch(inputs, None, new.rows), left_out)
        self._together[:] = [whole.outputs]
        outputs = whole.outputs.split(sizes)
        features = (
            whole.features.split(sizes) if whole.features is not None else [None] * len(sizes)
        )
        passed = [ForwardResult(*each) for each in zip(batches, outputs, features, strict=True)]
        return passed[0], passed[1:]

    def on_train_epoch_end(self) -> None:
        self._first_epoch = False

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        """Return which rows of the old memory stay and which new ones enter.

        A new example is taken in once, however many epochs it had.
        """
        if self.memory_update == "online" and not at_once:
            return self.working.chosen()
        candidates = StoredDataset(
            self.new.store, self.keepable, *self.context.functions.test_transforms
        )
        selection = select(self.policy, self.memory, candidates, self.model, self.context.task_id)
        added = self._fields_at_end(selection.added)
        selection = selection._replace(added=self.keepable[selection.added])
        return self.working.at_end(selection, added)

    # -- what is kept beside examples --------------------------------------------------------------

    def remember(self, passed: ForwardResult) -> Fields:
        """Return what is kept beside each example of a batch."""
        found: Fields = {}
        for component in self.parts:
            found |= component.remember(passed)
        return found

    def _remember_what_is_missing(self) -> None:
        """Let the parent's model say what a memory of another learner does not know."""
        if not self.memory_fields or not len(self.memory):
            return
        compute = partial(self._fields_of, self.memory)
        shapes = {name: each.shape[1:] for name, each in compute(np.zeros(1, np.int64)).items()}
        missing = self.working.complete(shapes, compute)
        if missing:
            names = " and ".join(self.memory_fields)
            self.context.say(f"{names} of {missing} remembered examples: from the parent's model")

    def _fields_at_end(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the trained model says of new examples, as they are measured."""
        if not self.memory_fields or not len(rows):
            return {}
        kept = StoredDataset(
            self.new.store, self.keepable[rows], *self.context.functions.test_transforms
        )
        blocks = [
            self._fields_of(kept, np.arange(start, min(start + BLOCK, len(rows))))
            for start in range(0, len(rows), BLOCK)
        ]
        return {
            name: torch.cat([block[name] for block in blocks]).cpu().numpy()
            for name in self.memory_fields
        }

    def _fields_of(self, examples: StoredDataset, rows: np.ndarray) -> Fields:
        """Return what the model says of examples, in evaluation mode."""
        plain = StoredDataset(
            examples.store, examples.rows, *self.context.functions.test_transforms
        )
        inputs, targets = plain.__getitems__(rows)
        batch = self.moved(Batch(inputs, targets, rows))
        training = self.model.training
        with torch.no_grad():
            self.model.eval()
            features = None
            if any(component.needs_features for component in self.parts):
                features = features_of(self.model, batch.inputs, self.context.task_id)
            passed = ForwardResult(batch, self(batch.inputs), features)
            self.model.train(training)
            return {name: each.cpu() for name, each in self.remember(passed).items()}

    # -- online -----------------------------------------------------------------------------------

    def _drawn_online(self) -> tuple[Batch, ...]:
        """Return draws from the memory as it is now, without repeats within one."""
        members = len(self.working)
        if not members:
            return ()
        size = min(self.memory_batch_size, members)
        drawn = [self._random_places(members, size) for _ in range(self.draws_a_step)]
        read = self.working.read
        return tuple(self.moved(read_share(read, places, ranks())) for places in drawn)

    def _random_places(self, members: int, size: int) -> np.ndarray:
        if 4 * size > members:
            return torch.randperm(members, generator=self._draws)[:size].numpy()
        places = np.empty(0, dtype=np.int64)
        while len(places) < size:  # with few of many, repeats are rare
            more = torch.randint(members, (size,), generator=self._draws).numpy()
            both = np.concatenate([places, more])
            _, first = np.unique(both, return_index=True)
            places = both[np.sort(first)][:size]
        return places

    def _take_in(self, new: ForwardResult) -> None:
        rows = new.batch.all_rows  # so that every process has the same memory
        fits = self._may_be_kept[rows]
        fields = gathered(self.remember(new), len(rows))
        if not fits.all():
            fields = {name: each[torch.from_numpy(fits)] for name, each in fields.items()}
        self.working.offer(self.policy, rows[fits], fields)

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

    def take_position(self, position: Mapping[str, Any]) -> None:
        super().take_position(position)
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
    """Return what a mean over batches is taken of: all but what stands in for an empty share.

    Where all does, the first; its mean then has no weight.
    """
    return [each for each in passed if not each.batch.stands_in] or [passed[0]]
