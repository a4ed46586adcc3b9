"""`FeatureDistilledReplay`: experience replay that distils features, the base of LUCIR and PODNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import StoredDataset, concatenate
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.frozen_copy import FrozenCopy, Representation
from renate_stages.learners.base.last_layer import check_rows, class_rows, row_parameters
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.replay import own
from renate_stages.learners.er import ExperienceReplay
from renate_stages.models.features import hook_layers


class Distance(NamedTuple):
    """A term of the loss that keeps a representation close to that of the parent's model.

    Args:
        weight: Factor of the term, >= 0.
        of_rows: Distance of each example, `(B,)`.
    """

    weight: float
    of_rows: Tensor


class FeatureDistilledReplay(ExperienceReplay):
    """Replays examples, and keeps their features close to those of the parent's model.

        L = mean of l + sum over i of w_i * mean of d_i(h*(x), h(x))    over new and remembered examples

    h are the inputs of the last layer and, if the learner needs them, the outputs of hooked layers, and
    h* are those of the parent's model. A subclass defines the distances d_i. The rows of old classes in
    the last layer stay as they are, bias included. Without a parent or old classes, L is the mean of l,
    and every row is trained. Features must have as many values as a row of the last layer's weight
    `(K, F)`, so that they can be compared.

    Args:
        context: The model, functions and settings of the update.
        base: Hyperparameters of `ExperienceReplay`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
    """

    name: ClassVar[str]  # for messages
    needs_features: ClassVar[bool] = True  # type: ignore[override]

    def __init__(self, context: UpdateContext, **base: Any) -> None:
        super().__init__(context, **base)
        context.require_labels(self.name)
        self.teacher: FrozenCopy | None = None

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        self._check_model(new)
        old, current = {*self.context.start.old_classes}, {*(new.classes() or ())}
        self.old_classes, self.new_classes = sorted(old), sorted(current - old)
        self.classes_in_new_data = max(1, len(current))
        if self.needs_layers:
            hook_layers(self.model)
        self.teacher = None
        if self.context.start.has_parent and old:
            self.teacher = FrozenCopy(self.model)  # before the learner's own hooks are registered
        for number, parameter in enumerate(row_parameters(self.model, self.name)):
            rows = parameter.detach()[self.old_classes].clone()
            self.register_buffer(f"fixed_{number}", rows, persistent=False)
        super().start_update(new, memory, keepable)

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        loss = super().total(new, draws)
        if self.teacher is None:
            return loss
        passed = own(new, *draws)
        joint = bool(draws) and self.replay_forward == "joint" and len(passed) == 1 + len(draws)
        now = _joined(self._together if joint else passed)
        self._together.clear()  # frees the layers before the next pass
        inputs = concatenate([result.batch.inputs for result in passed])
        taught = self.teacher.representation(inputs, self.context.task_id)
        for name, (weight, of_rows) in self.distances(now, taught).items():
            term = self.weighed(of_rows.mean(), *(each.batch for each in (new, *draws)))
            self._losses.add(name, term, len(new.batch.all_rows))
            loss = loss + weight * term
        return loss

    def distances(self, now: Representation, parents: Representation) -> Mapping[str, Distance]:
        """Return the terms that distil features, by name.

        Args:
            now: Representation of the new and the remembered examples.
            parents: That of the parent's model.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        if self.teacher is not None:
            self._restore_old_rows()
        super().after_step()

    @torch.no_grad()
    def _restore_old_rows(self) -> None:
        for number, parameter in enumerate(row_parameters(self.model, self.name)):
            parameter[self.old_classes] = self.get_buffer(f"fixed_{number}")

    def finish_model(self, measure: Measure | None) -> None:
        self.teacher = None

    @property
    def rows(self) -> Tensor:
        """The weight of the model's last layer, `(K, F)`."""
        return class_rows(self.model, self.name)

    def _check_model(self, new: StoredDataset) -> None:
        """Check that features and rows of the last layer can be compared.

        Raises:
            ModelMismatchError: If they cannot.
        """
        inputs = None
        if len(new):
            measured = StoredDataset(new.store, new.rows, *self.context.functions.test_transforms)
            inputs, _ = measured.__getitems__(np.arange(1))
        check_rows(self.model, self.name, inputs, self.context.task_id)


def angular_distance(now: Tensor, parents: Tensor) -> Tensor:
    """Return 1 - cos of the angle between the features of each row, `(B,)` float32.

    Args:
        now: `(B, F)`, any float dtype.
        parents: `(B, F)`, any float dtype.
    """
    return 1 - F.cosine_similarity(now.float(), parents.float(), dim=1)


def _joined(passed: list[ForwardResult]) -> Representation:
    """Return the representation of all examples, without a copy if they are in one result."""
    if len(passed) == 1 and passed[0].features is not None:
        return Representation(passed[0].features, passed[0].layers)
    features = [result.features for result in passed if result.features is not None]
    layers = zip(*(result.layers for result in passed), strict=True)
    return Representation(torch.cat(features), tuple(torch.cat(each) for each in layers))
