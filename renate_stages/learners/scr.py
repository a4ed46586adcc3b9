"""Supervised contrastive replay (Mai et al., "Supervised Contrastive Replay: Revisiting the Nearest
Class Mean Classifier in Online Class-Incremental Continual Learning", CVPR workshops 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renate_stages.data import Batch, StoredDataset
from renate_stages.data.ranks import gathered, ranks
from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.exemplar_means import check_class_labels, exemplar_means, exemplars
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.replay import ReplayLearner
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.memory import Selection
from renate_stages.models import RenateModule
from renate_stages.models.feature_classifier import give_nearest_mean
from renate_stages.models.module import unwrap
from renate_stages.randomness import seed_torch


class Projection(LossComponent):
    """The network between features and contrastive loss, kept for the next update.

    Args:
        size: Width of its outputs, >= 1.
    """

    replays = False
    needs_features = True
    survives: ClassVar[bool] = True

    def __init__(self, size: int) -> None:
        super().__init__(weight=0)
        self.size = size
        self.layers = nn.Sequential()

    def start_update(self, learner: Learner) -> None:
        head: Any = unwrap(learner.model).head
        width = head.linear.in_features
        with torch.random.fork_rng(devices=[]):
            seed_torch(learner.context.generators.integer("projection"))
            self.layers = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.size)
            )

    def of(self, features: Tensor) -> Tensor:
        """Return projected features of length 1, float32 `(B, size)`."""
        return F.normalize(self.layers(features).float(), dim=1)


class SCR(ReplayLearner):
    """SCR: contrastive replay, and prediction of the nearest class mean.

        L = mean over i of  -1/|P(i)| sum over p in P(i) of
                log(exp(z_i . z_p / T) / sum over a != i of exp(z_i . z_a / T))         (eq. 1)

    z are the projected features of length 1 of two views of each new and each remembered example,
    P(i) the other views with the label of i. A view is what `train_transform` returns, for remembered
    examples `buffer_transform`; it should be random. `loss_fn` is not called. After training, the
    model's head becomes a nearest-mean classifier on the features of the examples in memory; until
    then, its validation metrics use the memory and as many new examples per class as fit into it. This
    needs a model of this library, or a `FeatureClassifier` that accepts `nearest_mean`.

    Args:
        context: The model, functions and settings of the update.
        contrast_temperature: T, > 0; 0.07 in the paper.
        projection_size: Width of z, >= 1; 128 in the paper.
        base: Hyperparameters of `ReplayLearner`. The paper draws 100 examples from memory for batches
            of 10, and updates the memory `online`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
        ModelMismatchError: If the model's head cannot be a nearest-mean classifier.
    """

    weights_rows = False

    def __init__(
        self,
        context: UpdateContext,
        contrast_temperature: float = 0.07,
        projection_size: int = 128,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        context.require_labels("SCR")
        if in_range("contrast_temperature", contrast_temperature, 0) == 0:
            raise InvalidHyperparameterError(
                "contrast_temperature", contrast_temperature, "a number > 0"
            )
        self.contrast_temperature = contrast_temperature
        self.projection = Projection(positive("projection_size", projection_size))
        self.components.append(self.projection)
        give_nearest_mean(context.start.model, "SCR")
        if not context.functions.loss_fn.is_cross_entropy:
            context.say("SCR uses its own loss and does not call loss_fn")

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        check_class_labels(self, "SCR", new, memory)
        super().start_update(new, memory, keepable)

    def configure_optimizers(self) -> Any:
        trained = [*self.model.get_params(self.context.task_id), *self.projection.parameters()]
        return self.context.functions.optimizers([each for each in trained if each.requires_grad])

    def pass_all(
        self, new: Batch, drawn: tuple[Batch, ...]
    ) -> tuple[ForwardResult, list[ForwardResult]]:
        """Run two views of all batches: the results are those of the first, then of the second."""
        again = [self._with_inputs(new, self.new), *(self._with_inputs(e, None) for e in drawn)]
        return super().pass_all(new, (*drawn, *again))

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        parts = [self._of_all_processes(each) for each in (new, *draws)]
        projected, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        loss = contrastive_loss(projected, labels, self.contrast_temperature)
        if ranks().count == 1:
            return loss
        # Each process has the whole loss, but only the gradient with respect to its own examples,
        # and the mean over processes must be the sum. The sum of outputs lets every process have a
        # gradient, even if all its shares are empty.
        outputs = sum(each.outputs.sum() for each in (new, *draws))
        return ranks().count * loss - (ranks().count - 1) * loss.detach() + 0 * outputs

    def finish_model(self, measure: Measure | None) -> None:
        self._chosen = super().choose_memory()
        self._take_means(self.model, self._chosen.selection)

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        return super().choose_memory(at_once=True) if at_once else self._chosen

    @property
    def served(self) -> RenateModule:
        model = super().served
        self._take_means(model, Selection(np.arange(len(self.memory)), self._some_of_each_class()))
        return model

    def _with_inputs(self, batch: Batch, source: StoredDataset | None) -> Batch:
        """Return a batch with another view of its examples, from the memory if `source` is None."""
        if batch.is_placeholder:
            return batch
        if source is None:
            inputs = self.working.read(batch.rows).inputs
        else:
            inputs, _ = source.__getitems__(batch.rows)
        view = self.moved(Batch(inputs, (), batch.rows))
        return Batch(view.inputs, batch.targets, batch.rows, batch.fields, batch.whole)

    def _of_all_processes(self, passed: ForwardResult) -> tuple[Tensor, Tensor]:
        """Return projected features and labels of a batch; those of other processes are detached."""
        assert passed.features is not None
        batch, rows = passed.batch, len(passed.batch.all_rows)
        projected = self.projection.of(passed.features)
        labels = gathered(batch.targets.long(), rows)
        if ranks().count == 1:
            return projected, labels
        first, last = ranks().bounds(rows)
        others = gathered(projected, rows)
        return torch.cat([others[:first], projected[: last - first], others[last:]]), labels

    def _some_of_each_class(self) -> np.ndarray:
        """Return rows of the new data, at most an equal share of the memory for each class."""
        labels = self.new.labels()
        if labels is None or self.policy.size is None:
            return np.arange(len(self.new))
        number = max(1, self.policy.size // max(1, len(self.classes)))
        return np.sort(
            np.concatenate([np.flatnonzero(labels == e)[:number] for e in np.unique(labels)])
        )

    def _take_means(self, model: RenateModule, selection: Selection) -> None:
        head: Any = unwrap(model).head
        head.take_means(exemplar_means(model, exemplars(self, selection), self.context.task_id))


def contrastive_loss(projected: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the loss of `SCR`; views without another one of their label are left out.

    Args:
        projected: z, float32 `(n, d)`, each of length 1.
        labels: int64 `(n,)`; rows with negative labels are ignored.
        temperature: T, > 0.
    """
    projected, labels = projected[labels >= 0], labels[labels >= 0]
    similar = projected @ projected.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_shares = similar - similar.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positive_pairs = (labels[:, None] == labels) & ~itself
    number = positive_pairs.sum(1)
    terms = -(log_shares * positive_pairs).sum(1) / number.clamp(min=1)
    has_pair = number > 0
    return (terms * has_pair).sum() / has_pair.sum().clamp(min=1)
