"""PODNet (Douillard et al., "PODNet: Pooled Outputs Distillation for Small-Tasks Incremental Learning",
ECCV 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import Batch, StoredDataset
from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.frozen_copy import Representation
from renate_stages.learners.base.last_layer import row_parameters
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.masking import MASKED
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.pooled_outputs import distance, pooled
from renate_stages.learners.base.working_memory import BLOCK
from renate_stages.learners.feature_distilled_er import (
    Distance,
    FeatureDistilledReplay,
    angular_distance,
)
from renate_stages.models.features import features_of
from renate_stages.tasks.row_loss import RowLoss


class PODNet(FeatureDistilledReplay):
    """PODNet: replay that keeps pooled outputs of layers, and classifies by cosines.

        L = mean of NCA + w_c * mean over layers of ||p(h_l(x)) - p(h*_l(x))||
                        + w_f * mean of (1 - cos(f(x), f*(x)))  over new and remembered examples
        NCA = max(0, -log(exp(eta (c_y - delta)) / sum over k != y of exp(eta c_k)))
        c_k = cos(f(x), row k of the last layer),  w = lambda * sqrt(seen classes / classes in new data)

    h_l are the outputs of hooked layers and f the inputs of the last layer; * marks the parent's model.
    p sums squares over width and over height, and scales the result to length 1 (POD-spatial, section
    3.1; POD-flat is the last term). The layers are those of POD-ER. `loss_fn` is not called. Rows of
    classes that no update has seen take no part.

    The exported model is unchanged: during training, the rows of seen classes have length 1 and no
    bias, and at the end all get one length, so that the largest logit is that of the largest cosine,
    and logits are about eta times the cosines. So there is a single row for each class: the paper's ten
    proxies per class (section 3.2) need another head. eta is a hyperparameter; the paper learns it, from
    1, but at common learning rates the margin then drives it towards 0 in the first steps. As in the
    authors' code, rows of old classes stay as they are. Two parts of that code are left out, because
    they did not help on digits: rows of new classes that start as means of features, and a final
    training of all rows on equally many exemplars of each class.

    Args:
        context: The model, functions and settings of the update.
        spatial_weight: lambda_c, >= 0; 3 in the paper for CIFAR-100, 8 for ImageNet.
        flat_weight: lambda_f, >= 0; 1 in the paper for CIFAR-100, 10 for ImageNet.
        margin: delta, in [0, 2]; 0.6 in the paper.
        similarity_scale: eta, > 0.
        base: Hyperparameters of `ExperienceReplay`. The paper keeps 20 examples of each class, chosen
            by `herding`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
        ModelMismatchError: If features and rows cannot be compared, or the model names no layers.
    """

    name = "PODNet"
    needs_layers: ClassVar[bool] = True  # type: ignore[override]

    calls_loss = False

    def __init__(
        self,
        context: UpdateContext,
        spatial_weight: float = 3.0,
        flat_weight: float = 1.0,
        margin: float = 0.6,
        similarity_scale: float = 8.0,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.mask_unused_classes = True
        self.spatial_weight = in_range("spatial_weight", spatial_weight, 0)
        self.flat_weight = in_range("flat_weight", flat_weight, 0)
        self.margin = in_range("margin", margin, 0, 2)
        if in_range("similarity_scale", similarity_scale, 0) == 0:
            raise InvalidHyperparameterError("similarity_scale", similarity_scale, "a number > 0")
        self.scale = similarity_scale
        self._nca = RowLoss(context.task, self._nca_of_rows)
        if not context.functions.loss_fn.is_cross_entropy:
            context.say("PODNet uses its own loss and does not call loss_fn")

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        self.classes = self.seen_classes(new, memory)
        self._scale_rows(1.0)
        self._nca.all_count = self.context.functions.loss_fn.all_count
        super().start_update(new, memory, keepable)
        seen = len({*self.old_classes, *self.new_classes})
        self._factor = math.sqrt(seen / self.classes_in_new_data)

    @property
    def row_loss(self) -> RowLoss:
        return self._nca

    def pass_on(self, batch: Batch, left_out: Sequence[int] = ()) -> ForwardResult:
        """Run a batch through the model; the outputs are cosines of features and rows, `(B, K)`."""
        passed = super().pass_on(batch, left_out)
        assert passed.features is not None
        with torch.autocast(passed.features.device.type, enabled=False):
            unit = F.normalize(passed.features.float(), dim=1)  # (B, F)
            cosines = unit @ F.normalize(self.rows.float(), dim=1).T  # (B, K)
        return passed._replace(outputs=cosines + 0 * passed.outputs)  # a gradient for every weight

    def distances(self, now: Representation, parents: Representation) -> dict[str, Distance]:
        spatial = [
            distance(*(pooled(each, "spatial", normalize=True) for each in pair))
            for pair in zip(now.layers, parents.layers, strict=True)
        ]
        flat = angular_distance(now.features, parents.features)
        return {
            "PODSpatial": Distance(
                self.spatial_weight * self._factor, torch.stack(spatial).mean(0)
            ),
            "PODFlat": Distance(self.flat_weight * self._factor, flat),
        }

    def after_step(self) -> None:
        self._scale_rows(1.0)
        super().after_step()

    def finish_model(self, measure: Measure | None) -> None:
        super().finish_model(measure)
        self._scale_rows(self.scale / self._mean_length_of_features())

    def _nca_of_rows(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Return the classification loss of each row, `(B,)`."""
        scores, true = self.scale * cosines, labels.clamp(min=0)[:, None]
        others = scores.scatter(1, true, MASKED).logsumexp(1)
        return (others - scores.gather(1, true)[:, 0] + self.scale * self.margin).clamp(min=0)

    @torch.no_grad()
    def _scale_rows(self, length: float) -> None:
        """Give the rows of seen classes a length, and set their bias to 0."""
        weight, *bias = row_parameters(self.model, self.name)
        weight[self.classes] = length * F.normalize(weight[self.classes], dim=1)
        for each in bias:
            each[self.classes] = 0

    def _mean_length_of_features(self) -> float:
        """Return the mean length of the features of some new examples, with the test transforms."""
        examples = self.new if len(self.new) else self.memory
        rows = np.unique(np.linspace(0, len(examples) - 1, BLOCK).astype(np.int64))
        if not len(examples):
            return 1.0
        plain = StoredDataset(
            examples.store, examples.rows, *self.context.functions.test_transforms
        )
        features = features_of(self.model, plain.__getitems__(rows)[0], self.context.task_id)
        return max(1e-6, float(torch.linalg.vector_norm(features, dim=1).mean()))
