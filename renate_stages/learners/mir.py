"""Maximally interfered retrieval (Aljundi et al., "Online Continual Learning with Maximally Interfered
Retrieval", NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from renate_stages.data import Batch
from renate_stages.data.ranks import gathered, ranks, summed
from renate_stages.learners.base.batch_gradients import batch_gradient, split_like
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.masking import mask_classes
from renate_stages.learners.candidate_er import CandidateReplay


class MIR(CandidateReplay):
    """MIR: ER that replays the examples whose loss the next step would increase most.

        theta_v = theta - a * gradient of the mean of l(f(x), y) over the new batch
        replayed: the `memory_batch_size` candidates with the largest
                  l(f_theta_v(x'), y') - l(f_theta(x'), y')                            (Algorithm 1)

    A step draws candidates from memory at random, and then trains on the new and the chosen examples
    as ER does. a is the optimizer's current learning rate. Unlike in the paper's code, the gradient of
    this virtual step and the losses of candidates are computed in evaluation mode and full precision;
    see `CandidateReplay`.

    Args:
        context: The model, functions and settings of the update.
        candidate_factor: Candidates per replayed example, >= 1; 5 in the paper. With 1, or as long as
            the memory holds at most `memory_batch_size` examples, it is ER.
        base: Hyperparameters of `ExperienceReplay`.
    """

    def __init__(self, context: UpdateContext, candidate_factor: int = 5, **base: Any) -> None:
        super().__init__(context, candidate_factor, **base)
        self._optimizer: list[torch.optim.Optimizer] = []

    def configure_optimizers(self) -> Any:
        found = super().configure_optimizers()
        self._optimizer[:] = [found if isinstance(found, torch.optim.Optimizer) else found[0][0]]
        return found

    def values_of(self, new: Batch, draws: Sequence[Batch]) -> list[Tensor]:
        virtual = self._virtual_weights(new)
        return [self._increase(each, virtual) for each in draws]

    def _virtual_weights(self, new: Batch) -> dict[str, Tensor]:
        """Return the weights after a step of gradient descent on the new batch, by name."""
        assert self._optimizer, "call configure_optimizers first"
        rates = {
            id(parameter): group["lr"]
            for optimizer in self._optimizer
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        known = {n: each for n, each in self.model.named_parameters() if id(each) in rates}
        parameters = list(known.values())
        own = batch_gradient(self.supervised(self.pass_on(new)), parameters)
        gradients = split_like(summed(own) / ranks().count, parameters)
        return {
            name: parameter.detach() - rates[id(parameter)] * gradient
            for (name, parameter), gradient in zip(known.items(), gradients, strict=True)
        }

    @torch.no_grad()
    def _increase(self, candidates: Batch, virtual: dict[str, Tensor]) -> Tensor:
        """Return how much the virtual weights increase the weighted loss of each candidate."""
        task = {"task_id": self.context.task_id}
        before = self.model(candidates.inputs, **task)
        after = functional_call(self.model, virtual, (candidates.inputs,), task)
        losses = [self._losses_of_rows(outputs, candidates) for outputs in (before, after)]
        increase = losses[1] - losses[0]
        if candidates.weights is not None:
            increase *= candidates.weights.cpu()
        return gathered(increase, len(candidates.all_rows))

    def _losses_of_rows(self, outputs: Any, batch: Batch) -> Tensor:
        """Return what each row adds to the loss, float64 `(B,)` on the CPU."""
        loss_fn, targets = self.context.functions.loss_fn, batch.targets
        if self.mask_unused_classes:
            outputs = mask_classes(outputs, self.classes)
        count = len(tree_leaves(outputs)[0])
        rows = loss_fn.sums(outputs, targets, count).rows
        if rows is not None:
            return rows[:, 0]
        totals = []
        for row in range(count):
            one = (
                tree_map(lambda part, row=row: part[row : row + 1], p) for p in (outputs, targets)
            )
            totals.append(loss_fn.sums(*one, rows=1).total)
        return torch.tensor(totals, dtype=torch.float64)
