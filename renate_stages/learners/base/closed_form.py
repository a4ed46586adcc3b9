"""Learners that solve for the last layer of a frozen model in one pass, without gradients.

Such a learner stores sums over all examples of all updates (`ClassStatistics`). So its head equals
the one computed from all data at once, in any order and without stored examples, and the
contribution of an example can be subtracted exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from renate_stages.data import Batch, ConcatStored, StepBatch, StoredDataset
from renate_stages.data.loading import StepLoader
from renate_stages.data.ranks import gathered
from renate_stages.data.steps import InOrder, Steps
from renate_stages.errors import (
    FeaturesNotFiniteError,
    NotCountedError,
    UnfitHeadError,
)
from renate_stages.learners.base.class_statistics import ClassStatistics, Counted
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.labels import check_labels, class_labels
from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.policy import fit_policy, policy_of, restore_policy, select
from renate_stages.learners.base.working_memory import BLOCK, ChosenMemory
from renate_stages.memory import SelectionPolicy
from renate_stages.models.extra_state import EXTRA_STATE
from renate_stages.models.feature_classifier import FeatureClassifier
from renate_stages.models.features import digest_of, head_inputs_of, without_growth
from renate_stages.models.heads import PerTaskHeads, RandomFeatureHead
from renate_stages.models.module import unwrap

ROWS = 1024  # examples to add to the sums at once


class ClosedFormLearner(Learner):
    """Sums the features of all examples so far with a frozen model, and solves for its last layer.

    The features are the inputs of the model's `head`, in evaluation mode and full precision, with
    the test transforms. Training is one pass over the new data: `max_epochs`, `max_steps`,
    `ema_decay`, `shrink` and the optimizer have no effect, and only the model's head changes. If the parent's
    learner left no sums of these features, they are computed from the memory's examples.

    A row with weight w counts as w rows in all sums. A class without examples is never predicted: its
    score is the mean of the other scores minus a margin. This is finite, so a learner that trains with
    gradients can start from it.

    Examples can be forgotten exactly while they are in the memory, because their part of the sums
    is computed from them. Examples that have left the memory cannot be subtracted.

    Args:
        context: The model, functions and settings of the update.
        memory_size: Maximum number of examples, or of bytes, to keep for forgetting and for later
            learners that replay. None and 0 keep none; this learner needs none.
        memory_policy: Which examples stay, a name in `memory.policies.POLICIES`.
        base: Hyperparameters of `Learner`.

    Raises:
        UnfitHeadError: If the model has no head that this learner can solve for.
    """

    max_epochs = 1
    continues_training = False
    calls_loss = False
    weights_rows = True
    needs_gram: ClassVar[bool] = True

    def __init__(
        self,
        context: UpdateContext,
        memory_size: int | str | None = None,
        memory_policy: str = "reservoir",
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        context.require_labels(type(self).__name__)
        self.automatic_optimization = False
        self.ema_decay = 0.0
        self.memory_size = memory_size or None
        self.policy: SelectionPolicy | None = None
        if self.memory_size is not None:
            self.policy = policy_of(memory_policy, self.memory_size, context)
        self.check_head()
        self.statistics: ClassStatistics | None = None
        self._summed = ""  # digest of the tensors that compute the features in the sums
        self._waiting: list[Counted] = []  # to add to the sums
        self._is_solved = True  # whether the head was solved from the current sums

    # -- to override in a subclass ----------------------------------------------------------------

    def solve(self, statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
        """Return weights `(S, D)` and biases `(S,)`, float64, for the S classes with examples."""
        raise NotImplementedError

    def mapped(self, features: Tensor) -> Tensor:
        """Map features `(B, F)` to what is summed, `(B, D)` float64; here the features themselves."""
        return features

    def prepare_head(self) -> None:
        """Give the model the head to solve for; here a linear one."""
        if isinstance(self.module, FeatureClassifier) and self.module.random_features:
            self.module.use_random_features(0)

    def check_head(self) -> None:
        """Check that `prepare_head` can give the model a suitable head.

        Raises:
            UnfitHeadError: If it cannot.
        """
        own = isinstance(self.module, FeatureClassifier)
        fits = isinstance(self.head, nn.Linear) or (
            own and isinstance(self.head, RandomFeatureHead)
        )
        self.refuse_unless(fits, "a torch.nn.Linear")

    # -- the head ---------------------------------------------------------------------------------

    @property
    def module(self) -> nn.Module:
        """The user's module, without wrappers."""
        return unwrap(self.model)

    @property
    def head(self) -> Any:
        """The model's last layer."""
        return getattr(self.module, "head", None)

    @property
    def continues_sums(self) -> bool:
        """Whether the parent's learner left sums of this model's features, in a form to add to."""
        return self.statistics is not None and self._summed == digest_of(self.features_state())

    @property
    def linear(self) -> nn.Linear:
        """The linear layer to solve for."""
        return self.head.linear if isinstance(self.head, RandomFeatureHead) else self.head

    def refuse_unless(self, fits: bool, expected: str) -> None:
        """Check the model's head: it must be suitable and have a bias.

        Args:
            fits: Whether the head is of a suitable class.
            expected: The class that the message asks for.

        Raises:
            UnfitHeadError: If the head is missing, unsuitable or without a bias.
        """
        learner, model = type(self).__name__, type(self.module).__name__
        if self.head is None:
            cure = f"name its last layer `head`: {expected}, called with the features"
            raise UnfitHeadError(learner, model, "has no `head`", cure)
        if isinstance(self.head, PerTaskHeads):
            cure = 'build it with heads="shared"'
            raise UnfitHeadError(learner, model, "has one head for each task", cure)
        if not fits:
            found = f"has a head of class {type(self.head).__name__}"
            raise UnfitHeadError(learner, model, found, f"make the head {expected}")
        if self.linear.bias is None:
            raise UnfitHeadError(
                learner, model, "has a head without a bias", "give the head a bias"
            )

    @torch.no_grad()
    def write_head(self) -> None:
        """Solve for the head's weights and write them into the model."""
        assert self.statistics is not None
        self._sum_up()
        seen = self.statistics.seen
        weight = torch.zeros(self.linear.weight.shape, dtype=torch.float64)
        bias = torch.zeros(len(weight), dtype=torch.float64)
        if len(seen):
            weights, biases = self.solve(self.statistics)
            weight[:], bias[:] = weights.mean(0), biases.mean() - 1 - biases.abs().max()
            weight[seen], bias[seen] = weights, biases
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
        self._is_solved = True

    @property
    def served(self) -> Any:
        if not self._is_solved:
            self.write_head()
        return self.model

    # -- the steps of an update -------------------------------------------------------------------

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        if self.policy is not None and self.memory_size is not None:
            fit_policy(self.policy, self.memory_size, memory, new)
        for dataset in (new, memory):
            measured = self._as_measured(dataset)
            check_labels(measured, type(self).__name__, self.linear.out_features)
        self.prepare_head()
        self.examples = ConcatStored([self._as_measured(new)])
        summed = digest_of(self.features_state())
        if self.statistics is None or self._summed != summed:
            self._begin_anew(memory)
        self._summed = summed

    def _begin_anew(self, memory: StoredDataset) -> None:
        gram, width = self.needs_gram, self.linear.in_features
        self.statistics = ClassStatistics(self.linear.out_features, width, gram)
        self.examples = ConcatStored([self._as_measured(memory), *self.examples.parts])
        if self.context.start.has_parent:
            known = f"only the memory's {len(memory)} examples" if len(memory) else "nothing"
            self.context.say(
                f"the parent has no sums of these features, so {type(self).__name__} starts from "
                f"scratch and uses {known} of earlier data"
            )

    def train_dataloader(self) -> StepLoader:
        """Return a loader of one pass in the order of the data, which does not affect the sums."""
        return self.step_loader(Steps(self.examples), InOrder(len(self.examples), self.batch_size))

    @property
    def datasets(self) -> list[StoredDataset]:
        return list(self.examples.parts)

    def on_train_epoch_start(self) -> None:
        self.model.eval()

    def training_step(self, batch: StepBatch, batch_idx: int) -> Any:
        """Add a batch to the sums; there is no loss."""
        self._take_in(batch.new)

    def end_training(self, measure: Measure | None) -> None:
        super().end_training(measure)
        self.write_head()

    def configure_optimizers(self) -> None:
        """Return no optimizer, because no parameter is trained by gradients."""

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        if at_once:  # no training step will add these examples to the sums
            for batch in self.train_dataloader():
                self._take_in(batch.new)
        if self.policy is None:
            return super().choose_memory(at_once=at_once)
        candidates = StoredDataset(
            self.new.store, self.keepable, *self.context.functions.test_transforms
        )
        chosen = select(self.policy, self.memory, candidates, self.model, self.context.task_id)
        return ChosenMemory(chosen._replace(added=self.keepable[chosen.added]))

    def forget(self, examples: StoredDataset) -> None:
        """Subtract examples from the sums, and solve for the head without them.

        If the sums are of other features, they are discarded instead.

        Args:
            examples: Examples of the parent's memory, each of which the sums include once.

        Raises:
            NotCountedError: If they include more examples of a class than the sums.
        """
        if self.statistics is None or self._summed != digest_of(self.features_state()):
            self.statistics = None  # they include the examples, which cannot be subtracted
            return
        plain = self._as_measured(examples)
        for start in range(0, len(plain), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(plain)))
            self._waiting.append(self._counted(self.moved(Batch.of(plain, rows))))
        labels = torch.cat([each.labels[each.weights > 0] for each in self._waiting])
        leaving = labels.bincount(minlength=len(self.statistics.rows))
        for label in (leaving > self.statistics.rows).nonzero().flatten().tolist():
            counted = int(self.statistics.rows[label])
            raise NotCountedError(label, counted, int(leaving[label]))
        self._sum_up(sign=-1)
        self.write_head()

    # -- features ---------------------------------------------------------------------------------

    def _take_in(self, batch: Batch) -> None:
        own = self._counted(batch)
        self._waiting.append(
            gathered(own, len(batch.all_rows))
        )  # so that every process has the sums of all
        self._is_solved = False
        if sum(len(each.labels) for each in self._waiting) >= ROWS:
            self._sum_up()

    def _sum_up(self, sign: int = 1) -> None:
        assert self.statistics is not None
        if not self._waiting:
            return
        features, labels, weights = map(torch.cat, zip(*self._waiting, strict=True))
        for start in range(0, len(labels), ROWS):
            part = slice(start, start + ROWS)
            own = None if bool((weights[part] == 1).all()) else weights[part]
            self.statistics.add(self.mapped(features[part]), labels[part], sign, own)
        self._waiting = []

    def _counted(self, batch: Batch) -> Counted:
        """Return what the sums need of a batch, on the CPU."""
        learner = type(self).__name__
        labels = class_labels(batch.targets, learner, self.linear.out_features)
        features = head_inputs_of(self.model, batch.inputs, self.context.task_id)
        if features is None:
            cure = "let the model call `head` once, with features of shape (B, F)"
            name = type(self.module).__name__
            raise UnfitHeadError(learner, name, "does not end in its head", cure)
        if not features.isfinite().all():
            raise FeaturesNotFiniteError(learner)
        weights = torch.ones(len(labels)) if batch.weights is None else batch.weights.cpu()
        return Counted(features.cpu().double(), labels, weights.double())

    def _as_measured(self, dataset: StoredDataset) -> StoredDataset:
        return StoredDataset(dataset.store, dataset.rows, *self.context.functions.test_transforms)

    def features_state(self) -> dict[str, Tensor]:
        """Return the tensors that the features depend on: all but those of the head."""
        own = {
            name: value
            for name, value in self.module.state_dict().items()
            if name != EXTRA_STATE and not name.startswith("head.")
        }
        return without_growth(self.module, own)

    # -- state ------------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        assert self.statistics is not None
        self._sum_up()
        return {**super().position(), "statistics": self.statistics.tensors()}

    def restore_position(self, position: Mapping[str, Any]) -> None:
        super().restore_position(position)
        self._take_statistics(position["statistics"])
        self._is_solved = False

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        if self.policy is not None:
            values["policy"] = self.policy.state()
        if self.statistics is not None:
            self._sum_up()
            if len(self.statistics.seen):
                tensors |= self.statistics.tensors()
                values["features"] = self._summed
        return tensors, values

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().restore_learner(tensors, values)
        if self.policy is not None:
            restore_policy(self.policy, values)
        self._summed = values.get("features", "")
        if self._summed:
            self._take_statistics(tensors)

    def _take_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        outputs = self.linear.out_features
        self.statistics = ClassStatistics.of(tensors, outputs, self.needs_gram)
