"""LUCIR (Hou et al., "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import StoredDataset, concatenate
from renate_stages.errors import ModelMismatchError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.base.replay import own
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.lwf import FrozenCopy
from renate_stages.models import RenateModule
from renate_stages.models.features import backbone_of, features_of
from renate_stages.models.growth import output_layer
from renate_stages.models.module import unwrap


class MarginRanking(LossComponent):
    """Keeps remembered examples of old classes away from the most similar new classes.

        mean over x' of  sum over the K new classes k with the largest cos(f(x'), w_k) of
                         max(0, margin - cos(f(x'), w_y') + cos(f(x'), w_k))              (eq. 8)

    f are the features, and w_k is class k's row of the last layer. Remembered examples of new classes
    count as 0.

    Args:
        weight: Factor of the term, >= 0.
        margin: The margin, in [0, 2].
        hard_negatives: K, >= 1.
    """

    needs_features = True

    def __init__(self, weight: float = 1.0, margin: float = 0.5, hard_negatives: int = 2) -> None:
        super().__init__(weight, own_draw=False)
        self.margin = in_range("margin", margin, 0, 2)
        self.hard_negatives = positive("hard_negatives", hard_negatives)
        self._model: list[RenateModule] = []  # in a list, so that it is not a submodule
        self._old: list[int] = []
        self._new: list[int] = []

    def start_update(self, learner: Learner) -> None:
        self._model[:] = [learner.model]
        self._old = [*learner.context.start.old_classes]
        self._new = [each for each in learner.classes if each not in {*self._old}]

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None and memory.features is not None
        if not (self._old and self._new):
            return memory.features.new_zeros((), dtype=torch.float32)
        labels = memory.batch.targets.long()
        rows = F.normalize(class_rows(self._model[0]).float(), dim=1)  # (K, F)
        cosines = F.normalize(memory.features.float(), dim=1) @ rows.T  # (B, K)
        true = cosines.gather(1, labels.clamp(min=0)[:, None])
        number = min(self.hard_negatives, len(self._new))
        hardest = cosines[:, self._new].topk(number, dim=1).values
        is_old = torch.isin(labels, labels.new_tensor(self._old))
        return ((self.margin - true + hardest).clamp(min=0).sum(1) * is_old).mean()


class LUCIR(ExperienceReplay):
    """LUCIR: replay that keeps the directions of features, and separates old classes from new ones.

        L = mean of l + w * mean of (1 - cos(f*(x), f(x)))      over new and remembered examples
            + margin_weight * margin ranking of remembered examples of old classes
        w = less_forget_weight * sqrt(n / m)                                       (eq. 6 to 9)

    f are the inputs of the last layer, f* those of the parent's model, n is the number of old classes
    and m that of the classes in the new data. The rows of old classes in the last layer stay as they
    are, bias included. The paper's third part is a model whose logits are scaled cosines. It is not
    needed here: with a linear last layer, the cosines are those of its rows, without the bias. Your
    own last layer needs a `weight` `(K, F)`.

    Args:
        context: The model, functions and settings of the update.
        less_forget_weight: lambda_base, >= 0; 5 and 10 in the paper.
        margin_weight: Weight of the margin ranking, >= 0; 1 in the paper.
        margin: Margin between cosines, in [0, 2]; 0.5 in the paper.
        hard_negatives: New classes compared with each example, >= 1; 2 in the paper.
        base: Hyperparameters of `ReplayLearner`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
    """

    def __init__(
        self,
        context: UpdateContext,
        less_forget_weight: float = 5.0,
        margin_weight: float = 1.0,
        margin: float = 0.5,
        hard_negatives: int = 2,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        context.require_labels("LUCIR")
        self.less_forget_weight = in_range("less_forget_weight", less_forget_weight, 0)
        weight = in_range("margin_weight", margin_weight, 0)
        self.components.append(MarginRanking(weight, margin, hard_negatives))
        self.teacher: FrozenCopy | None = None

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        self._check_model(new)
        old = self.context.start.old_classes
        self.teacher = None
        if self.context.start.has_parent and old:
            self.teacher = FrozenCopy(self.model)  # before the learner's own hooks are registered
        self._less_forget = self.less_forget_weight * math.sqrt(
            len(old) / max(1, len(new.classes() or ()))
        )
        for number, parameter in enumerate(self._parameters_of_rows()):
            rows = parameter.detach()[[*old]].clone()
            self.register_buffer(f"fixed_{number}", rows, persistent=False)
        super().start_update(new, memory, keepable)

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        loss = super().total(new, draws)
        if self.teacher is None:
            return loss
        passed = own(new, *draws)
        features = torch.cat([result.features for result in passed if result.features is not None])
        taught = self._features_of_parent(concatenate([each.batch.inputs for each in passed]))
        cosines = F.cosine_similarity(features.float(), taught.float(), dim=1)
        term = self.weighed((1 - cosines).mean(), *(each.batch for each in (new, *draws)))
        self._losses.add("LessForget", term, len(new.batch.all_rows))
        return loss + self._less_forget * term

    def after_step(self) -> None:
        if self.teacher is not None:
            old = [*self.context.start.old_classes]
            with torch.no_grad():
                for number, parameter in enumerate(self._parameters_of_rows()):
                    parameter[old] = self.get_buffer(f"fixed_{number}")
        super().after_step()

    def _features_of_parent(self, inputs: Any) -> Tensor:
        assert self.teacher is not None
        kept: list[Tensor] = []
        backbone = backbone_of(self.teacher.model)
        hook = backbone.register_forward_hook(lambda *given: kept.append(given[-1]))
        try:
            self.teacher(inputs, self.context.task_id)
        finally:
            hook.remove()
        return kept[-1].flatten(1)

    def _parameters_of_rows(self) -> list[Tensor]:
        """Return weight and, if there is one, bias of the last layer."""
        layer = _last_layer(self.model)
        found = [getattr(layer, "weight", None), getattr(layer, "bias", None)]
        return [each for each in found if isinstance(each, Tensor)]

    def _check_model(self, new: StoredDataset) -> None:
        """Check that features and rows of the last layer can be compared.

        Raises:
            ModelMismatchError: If not.
        """
        backbone_of(self.model)
        rows = class_rows(self.model)
        if not len(new):
            return
        measured = StoredDataset(new.store, new.rows, *self.context.functions.test_transforms)
        inputs, _ = measured.__getitems__(np.arange(1))
        features = features_of(self.model, inputs, self.context.task_id)
        if features.shape[1] != rows.shape[1]:
            raise ModelMismatchError(
                f"LUCIR compares the outputs of `features`, {features.shape[1]} numbers, with the rows "
                f"of the last layer, {rows.shape[1]} numbers",
                "let the last layer take the outputs of `features`, or choose another learner",
            )


def class_rows(model: RenateModule) -> Tensor:
    """Return the weight of a model's last layer, `(K, F)`.

    Raises:
        ModelMismatchError: If the layer has no such weight.
    """
    layer = _last_layer(model)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ModelMismatchError(
            "LUCIR compares features with the rows of the last layer's weight (K, F), and "
            f"{type(layer).__name__} of {type(unwrap(model)).__name__} has no such weight",
            "end the model in a linear layer, name it with `output_layer`, or choose another learner",
        )
    return weight


def _last_layer(model: RenateModule) -> Any:
    module = unwrap(model)
    name = output_layer(module)
    return None if name is None else module.get_submodule(name)
