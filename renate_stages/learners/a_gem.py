"""Averaged gradient episodic memory (Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR
2019)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from renate_stages.data import Batch, StoredDataset
from renate_stages.data.ranks import summed
from renate_stages.learners.base.batch_gradients import batch_gradient, split_like
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.replay import ReplayLearner


class AGEM(ReplayLearner):
    """A-GEM: fine-tunes, without steps that would raise the loss on remembered examples.

        g     = gradient of the mean of l(f(x), y) over the new batch
        g_ref = gradient of the mean of l(f(x'), y') over a draw from memory
        g    <- g - (g . g_ref / g_ref . g_ref) g_ref     if g . g_ref < 0              (eq. 11)

    So remembered examples limit the steps, and are not trained on: with few examples in memory it
    forgets more than ER, and overfits them less. Each step projects the gradient that the optimizer
    receives: the mean over all processes and over accumulated batches, before gradient clipping. An
    optimizer with weight decay or momentum adds these afterwards, and they are not projected.

    Args:
        context: The model, functions and settings of the update.
        base: Hyperparameters of `ReplayLearner`; `replay_forward` is always `separate`. The paper
            draws 256 examples from memory for batches of 10.
    """

    def __init__(self, context: UpdateContext, **base: Any) -> None:
        super().__init__(context, **{**base, "replay_forward": "separate"})
        self._projected: list[nn.Parameter] = []
        self._reference: Tensor | None = None  # g_ref of the batches since the last step, (P,)

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        trained = self.model.get_params(self.context.task_id)
        self._projected = [each for each in trained if each.requires_grad]
        self._reference = None

    def pass_all(
        self, new: Batch, drawn: tuple[Batch, ...]
    ) -> tuple[ForwardResult, list[ForwardResult]]:
        passed = self.pass_on(new)
        with _without_float16(self.device):
            return passed, [self.pass_on(each) for each in drawn]

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        for drawn in draws:
            loss = self.supervised(drawn)
            self._losses.add("ReplayLoss", loss, len(new.batch.all_rows))
            gradient = batch_gradient(loss, self._projected)
            self._reference = gradient if self._reference is None else self._reference + gradient
        return super().total(new, draws)

    @torch.no_grad()
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Project the gradient; Lightning calls this after averaging it and before clipping it."""
        if self._reference is None:
            return
        reference = summed(self._reference)  # its length does not matter
        self._reference = None
        pairs = list(zip(self._projected, split_like(reference, self._projected), strict=True))
        products = [(each.grad * part).sum() for each, part in pairs if each.grad is not None]
        squared = reference.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
        factor = torch.stack(products).sum().clamp(max=0) / squared if products else 0.0
        for parameter, part in pairs:
            if parameter.grad is not None:
                parameter.grad.sub_(factor * part)
            elif bool(factor):  # only the remembered examples use this weight
                parameter.grad = -factor * part


def _without_float16(device: torch.device) -> Any:
    """Return a context in which a gradient cannot underflow: only the step's loss is scaled."""
    kind = device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return torch.autocast(kind, enabled=False) if half else nullcontext()
