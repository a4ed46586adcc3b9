"""Super-ER: all components of the predecessor's replay learners together (awslabs/Renate)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from renate_stages.data import StoredDataset
from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base.arguments import in_range, one_of
from renate_stages.learners.base.components import LogitDistillation
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.pooled_outputs import POOLINGS
from renate_stages.learners.base.warm_start import shrink_and_perturb
from renate_stages.learners.cls_er import CLSER
from renate_stages.learners.pod_er import PooledOutputDistillation


class SuperER(CLSER):
    """Super-ER: replay of labels, logits and pooled outputs, two averaged teachers, and shrinking.

        L = mean of l over new and remembered examples + consistency_weight * CLS
            + der_alpha * DER + pod_alpha * POD

    DER, CLS and POD are those of DER, CLS-ER and POD-ER, on the same draw from memory. Before the
    update, each trained weight becomes `sp_shrink_factor * theta + sp_sigma * N(0, 1)` (Ash & Adams,
    "On Warm-Starting Neural Network Training", NeurIPS 2020). The result is the trained model.

    Args:
        context: The model, functions and settings of the update.
        der_alpha: Weight of the distance to stored logits, >= 0.
        pod_alpha: Weight of the distance of pooled outputs, >= 0.
        pod_distillation_type: As `distillation_type` of POD-ER.
        pod_normalize: As `normalize` of POD-ER.
        sp_shrink_factor: Factor of the weights in (0, 1]; 1: no shrinking.
        sp_sigma: Standard deviation of the noise, >= 0.
        base: Hyperparameters of `CLSER`; `consistency_weight` is Renate's `cls_alpha`. `shrink` and
            `perturb` are refused, because `sp_shrink_factor` and `sp_sigma` take their place.
    """

    def __init__(
        self,
        context: UpdateContext,
        der_alpha: float = 0.3,
        pod_alpha: float = 1.0,
        pod_distillation_type: Literal[
            "spatial", "width", "height", "channel", "gap", "pixel"
        ] = "spatial",
        pod_normalize: bool = True,
        sp_shrink_factor: float = 0.95,
        sp_sigma: float = 0.001,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        for name, default in (("shrink", 1), ("perturb", 0)):
            if (value := getattr(self.warm_start, name)) != default:
                allowed = f"{default} for Super-ER, which has sp_shrink_factor and sp_sigma instead"
                raise InvalidHyperparameterError(name, value, allowed)
        self.shrink_factor = in_range("sp_shrink_factor", sp_shrink_factor, 1e-6, 1)
        self.sigma = in_range("sp_sigma", sp_sigma, 0)
        pooling = one_of("pod_distillation_type", pod_distillation_type, POOLINGS)
        self.components.append(LogitDistillation(in_range("der_alpha", der_alpha, 0), False))
        self.components.append(
            PooledOutputDistillation(
                in_range("pod_alpha", pod_alpha, 0), pooling, bool(pod_normalize), False
            )
        )

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        self._shrink_and_perturb()  # after the teachers have copied or restored their weights

    def _shrink_and_perturb(self) -> None:
        generator = self.context.generators.torch("perturb")

        def noise(_: str, parameter: nn.Parameter) -> Tensor:
            return torch.randn(parameter.shape, generator=generator)

        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        shrink_and_perturb(trained, self.shrink_factor, self.sigma, noise)
