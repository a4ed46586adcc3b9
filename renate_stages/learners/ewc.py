"""Online elastic weight consolidation (Kirkpatrick et al., "Overcoming catastrophic forgetting in
neural networks", PNAS 2017; Schwarz et al., "Progress & Compress", ICML 2018)."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from renate_stages.learners.base import Learner
from renate_stages.learners.base.anchored import ImportancePenalty
from renate_stages.learners.base.arguments import in_range, one_of, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.fisher import KINDS, diagonal_fisher
from renate_stages.learners.base.loss_component import ForwardResult


class QuadraticPenalty(ImportancePenalty):
    """Penalizes changes of weights since the last update, in proportion to their importance.

        1/2 sum over weights of F (theta - theta*)^2        (Kirkpatrick et al., eq. 3)
        F <- decay F + F_t,  theta* <- theta after update t        (Schwarz et al., eqs. 8 and 9)

    Args:
        weight: Factor of the term, >= 0.
        decay: Factor of the accumulated importance at each update, in [0, 1].
        examples: Maximum number of examples to compute F_t from, >= 1.
        kind: `sampled` or `empirical`, see `diagonal_fisher`.
    """

    kept_as = "fisher"

    def __init__(
        self,
        weight: float = 1.0,
        decay: float = 1.0,
        examples: int = 1000,
        kind: str = "sampled",
    ) -> None:
        super().__init__(weight)
        self.decay, self.examples, self.kind = decay, examples, kind

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        return super().forward(new, memory) / 2

    def end_training(self, learner: Learner) -> None:
        fisher = diagonal_fisher(learner, self.examples, self.kind)
        for name, _ in self.trained:
            self.importance(name).mul_(self.decay).add_(fisher[name])
        self.move_anchor()


class EWC(Learner):
    """Online EWC: fine-tuning with a penalty on changes of important weights.

        L = l(f(x), y) + ewc_weight / 2 * sum of F (theta - theta*)^2

    It stores two numbers per weight and no data. It suits data that shifts; in updates with new
    classes it forgets as much as fine-tuning.

    Args:
        context: The model, functions and settings of the update.
        ewc_weight: Lambda, >= 0; useful from 1 to 10,000, depending on the task.
        fisher_decay: Gamma in [0, 1]: the share of the importance that each update keeps.
        fisher_examples: Number of new examples from which importance is computed, >= 1.
        fisher: Labels to compute it with: `sampled` from the model's predictions, or `empirical`,
            the true ones.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        ewc_weight: float = 100.0,
        fisher_decay: float = 1.0,
        fisher_examples: int = 1000,
        fisher: Literal["sampled", "empirical"] = "sampled",
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        penalty = QuadraticPenalty(
            in_range("ewc_weight", ewc_weight, 0),
            in_range("fisher_decay", fisher_decay, 0, 1),
            positive("fisher_examples", fisher_examples),
            one_of("fisher", fisher, KINDS),
        )
        self.components.append(penalty)
