"""`renate.benchmark.models.base`: what Renate's benchmark models share, a head for each task."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from renate_stages.compat.renate import defaults
from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import FeatureClassifier, Heads

BACKBONE = "_backbone"  # the attribute that a subclass in Renate assigns


class RenateBenchmarkingModule(FeatureClassifier):
    """Features, and a linear head for each task; the default task's head exists from the start.

    A subclass assigns its features to `self._backbone`, as in Renate; here they are named `features`.

    Args:
        embedding_size: Width F of the features `(B, F)`.
        num_outputs: Number of outputs of each head.
        constructor_arguments: See `RenateModule`; `num_outputs` and `add_icarl_class_means` are added.
        prediction_strategy: Must be None: the learner iCaRL predicts by class means itself.
        add_icarl_class_means: No effect: the learner iCaRL keeps the class means in the head.
        heads: `per_task`, as in Renate; `shared` for learners that need one head, such as iCaRL,
            RanPAC, SLDA and NCM, and for labels that are added later.
        nearest_mean: Set by the learner iCaRL.
        random_features: Set by the learner RanPAC.

    Raises:
        ModelArgumentError: If an argument is refused or outside its range.
    """

    def __init__(
        self,
        embedding_size: int,
        num_outputs: int,
        constructor_arguments: dict[str, Any],
        prediction_strategy: object = None,
        add_icarl_class_means: bool = True,
        heads: Heads = "per_task",
        nearest_mean: bool = False,
        random_features: int = 0,
    ) -> None:
        if prediction_strategy is not None:
            expected = "None; choose the learner iCaRL, which sets its own rule of prediction"
            name = type(self).__name__
            raise ModelArgumentError(name, "prediction_strategy", prediction_strategy, expected)
        own = {"num_outputs": num_outputs, "add_icarl_class_means": add_icarl_class_means}
        if heads != "per_task":  # subclasses of Renate's users do not have the argument
            own["heads"] = heads
        super().__init__(
            {**constructor_arguments, **own},
            nn.Identity(),
            embedding_size,
            num_outputs,
            heads,
            random_features,
            nearest_mean,
        )
        self.add_task_params(defaults.TASK_ID)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("features" if name == BACKBONE else name, value)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__("features" if name == BACKBONE else name)

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
