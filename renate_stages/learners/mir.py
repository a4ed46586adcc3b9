"""Maximally interfered retrieval (Aljundi et al., "Online Continual Learning with Maximally Interfered
Retrieval", NeurIPS 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from renate_stages.data import Batch
from renate_stages.data.ranks import gathered, ranks, summed
from renate_stages.learners.base.arguments import positive
from renate_stages.learners.base.batch_gradients import batch_gradient, split_like
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.masking import mask_classes
from renate_stages.learners.er import ExperienceReplay


class MIR(ExperienceReplay):
    """MIR: ER that replays the examples whose loss the next step would increase most.

        theta_v = theta - a * gradient of the mean of l(f(x), y) over the new batch
        replayed: the `memory_batch_size` candidates with the largest
                  l(f_theta_v(x'), y') - l(f_theta(x'), y')                            (Algorithm 1)

    A step draws candidates from memory at random, and then trains on the new and the chosen examples
    as ER does. a is the optimizer's current learning rate. Unlike in the paper's code, the gradient of
    this virtual step and the losses of candidates are computed in evaluation mode and full precision,
    so that they change neither batch statistics nor random numbers, and a candidate's loss does not
    depend on the others.

    Args:
        context: The model, functions and settings of the update.
        candidate_factor: Candidates per replayed example, >= 1; 5 in the paper. With 1, or as long as
            the memory holds at most `memory_batch_size` examples, it is ER.
        base: Hyperparameters of `ReplayLearner`.
    """

    def __init__(self, context: UpdateContext, candidate_factor: int = 5, **base: Any) -> None:
        super().__init__(context, **base)
        self.candidate_factor = positive("candidate_factor", candidate_factor)
        self._optimizer: list[torch.optim.Optimizer] = []

    @property
    def rows_per_draw(self) -> int:
        return self.memory_batch_size * self.candidate_factor

    def configure_optimizers(self) -> Any:
        found = super().configure_optimizers()
        self._optimizer[:] = [found if isinstance(found, torch.optim.Optimizer) else found[0][0]]
        return found

    def pass_all(
        self, new: Batch, drawn: tuple[Batch, ...]
    ) -> tuple[ForwardResult, list[ForwardResult]]:
        if any(len(each.all_rows) > self.memory_batch_size for each in drawn):
            modes = [(each, each.training) for each in self.model.modules()]
            self.model.eval()
            try:
                with torch.autocast(self.device.type, enabled=False):
                    virtual = self._virtual_weights(new)
                    drawn = tuple(self._most_interfered(each, virtual) for each in drawn)
            finally:
                for module, training in modes:  # a part of the model may never train
                    module.training = training
            self.layers_of_last_call()  # forgets the outputs of hooked layers
        return super().pass_all(new, drawn)

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
    def _most_interfered(self, candidates: Batch, virtual: dict[str, Tensor]) -> Batch:
        """Return the candidates whose loss is increased most by the virtual weights."""
        everything = candidates.all_rows
        if len(everything) <= self.memory_batch_size:
            return candidates
        task = {"task_id": self.context.task_id}
        before = self.model(candidates.inputs, **task)
        after = functional_call(self.model, virtual, (candidates.inputs,), task)
        increase = self._losses_of_rows(after, candidates) - self._losses_of_rows(
            before, candidates
        )
        increase = gathered(increase, len(everything))  # over all processes
        order = increase.argsort(descending=True, stable=True)
        chosen = order[: self.memory_batch_size].sort().values.numpy()
        first, last = ranks().bounds(len(everything))
        own = chosen[(chosen >= first) & (chosen < last)] - first
        places = torch.from_numpy(own if len(own) else np.zeros(1, np.int64))  # or a placeholder
        kept = candidates.mapped(lambda each: each[places.to(each.device)])
        whole = None if candidates.whole is None else candidates.whole[chosen]
        return Batch(kept.inputs, kept.targets, candidates.rows[own], kept.fields, whole)

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
