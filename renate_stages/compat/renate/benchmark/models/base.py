"""What Renate's benchmark models share: a head for each task, and two arguments of all."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from renate_stages.compat.renate import defaults
from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import FeatureClassifier, Heads


class RenateBenchmarkingModule(FeatureClassifier):
    """Features, and a linear head for each task; the default task's head exists from the start.

    Args:
        constructor_arguments: See `RenateModule`.
        features: Maps inputs to `(B, F)`.
        embedding_size: F.
        num_outputs: Number of outputs of each head.
        heads: `per_task`, as in Renate; `shared` for learners that need one head, such as iCaRL,
            RanPAC, SLDA and NCM, and for labels that are added later.
        prediction_strategy: Must be None: the learner iCaRL predicts by class means itself.
    """

    def __init__(
        self,
        constructor_arguments: dict[str, Any],
        features: nn.Module,
        embedding_size: int,
        num_outputs: int,
        heads: Heads,
        prediction_strategy: object = None,
        nearest_mean: bool = False,
        random_features: int = 0,
    ) -> None:
        if prediction_strategy is not None:
            expected = "None; choose the learner iCaRL, which sets its own rule of prediction"
            name = type(self).__name__
            raise ModelArgumentError(name, "prediction_strategy", prediction_strategy, expected)
        super().__init__(
            {**constructor_arguments, "num_outputs": num_outputs, "heads": heads},
            features,
            embedding_size,
            num_outputs,
            heads,
            random_features,
            nearest_mean,
        )
        self.add_task_params(defaults.TASK_ID)

    def forward(self, x: Tensor, task_id: str | None = defaults.TASK_ID) -> Tensor:
        """Return the outputs `(B, K)` of a task's head."""
        return super().forward(x, task_id)

    def get_backbone(self, task_id: str = defaults.TASK_ID) -> nn.Module:
        """Return the features, which all tasks share."""
        return self.features

    def get_predictor(self, task_id: str = defaults.TASK_ID) -> nn.Module:
        """Return the head of a task."""
        of = getattr(self.head, "of", None)
        return of(task_id) if of is not None else self.head
