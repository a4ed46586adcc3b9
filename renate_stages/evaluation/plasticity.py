"""Measure a model's ability to learn: dead units, norm of the weights, rank of the features.

A model that is trained again and again may lose plasticity: it learns less and less from new data.
Units that no longer react, weights that grow, and features of low rank come with it (Dohare et al.,
"Loss of plasticity in deep continual learning", Nature 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.evaluation.evaluator import called, evaluation_mode
from renate_stages.models import RenateModule
from renate_stages.models.growth import output_layer
from renate_stages.models.module import unwrap

DIGITS = 6  # significant digits of a figure
CONSTANT = 1e-6  # largest difference of the values of a unit that counts as constant
EXACT = (nn.ReLU, nn.ReLU6, nn.Threshold, nn.Hardshrink, nn.Softshrink)  # 0 if a unit is off
SMOOTH = (
    *(nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.PReLU, nn.RReLU),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
)
CHANNELS_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)


def plasticity(
    model: RenateModule,
    batches: Iterable[Any],
    task_id: str | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float | None]:
    """Return figures of a model's plasticity; the model is not changed.

        dead_units         share of units that are off for every row
        weight_norm        sqrt(mean of w^2) over the trained parameters w
        effective_rank     exp(-sum of p_i log p_i), p_i = s_i / sum of s
        feature_dimension  F

    Units are the outputs of the model's activation modules, such as `nn.ReLU` and `nn.GELU`, before
    the last linear layer; the channels after a convolution, and the last dimension otherwise. A unit
    is off if it is 0 for every row and position, or, after activations without an exact zero, if it
    is constant. The s_i are the singular values of the features (N, F) that enter the last linear
    layer (Roy & Vetterli, "The effective rank: A measure of effective dimensionality", EUSIPCO 2007).

    Args:
        model: The model; it runs in evaluation mode and without gradients.
        batches: Inputs of the model, a batch each.
        task_id: Task whose parameters are used.
        device: Device to run on.

    Returns:
        Each figure with 6 significant digits. None if the model has no activation modules, if it is
        unclear which dimension of theirs is that of the units, if it has no last linear layer whose
        inputs are (B, F), if there are fewer than two rows, or if a value is not finite.
    """
    watch = _Watch(unwrap(model))
    try:
        with evaluation_mode(model, torch.device(device)):
            for inputs in batches:
                watch.begin_batch()
                called(model, inputs, task_id)
    finally:
        watch.end()
    features = watch.all_features()
    figures = {
        "dead_units": watch.dead_units(),
        "weight_norm": _weight_norm(model, task_id),
        "effective_rank": None if features is None else effective_rank(features),
        "feature_dimension": None if features is None else float(features.shape[1]),
    }
    return {name: _rounded(value) for name, value in figures.items()}


def effective_rank(features: Tensor) -> float | None:
    """Return the effective rank of features `(N, F)`; None if they are all 0 or not finite."""
    if not features.isfinite().all():
        return None
    values = torch.linalg.svdvals(features.double())
    total = values.sum()
    if total == 0:
        return None
    shares = values / total
    return math.exp(float(torch.special.entr(shares).sum()))  # entr(0) is 0


def _weight_norm(model: RenateModule, task_id: str | None) -> float | None:
    trained = [p.detach() for p in model.get_params(task_id) if p.requires_grad]
    number = sum(each.numel() for each in trained)
    if not number:
        return None
    return math.sqrt(sum(float(each.double().square().sum()) for each in trained) / number)


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


class _Watch:
    """Hooks that record the extremes of all units, and the inputs of the last linear layer.

    Args:
        module: The model, without a wrapper.
    """

    def __init__(self, module: nn.Module) -> None:
        self._extremes: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        self._is_exact: dict[tuple[str, int], bool] = {}
        self._features: list[Tensor] = []
        self._is_clear = True  # whether the dimension of all units is known
        self._has_features = True
        self._rows = 0  # seen by the first activation module
        self._hooks = []
        modules = dict(module.named_modules())
        head = output_layer(module)
        last = modules.get(head) if head is not None else None
        inside = {id(each) for each in last.modules()} if last is not None else set()
        for name, each in modules.items():
            if id(each) in inside:
                continue
            if isinstance(each, (*EXACT, *SMOOTH)):
                self._hooks.append(each.register_forward_hook(self._observer(name, each)))
            elif isinstance(each, (*CHANNELS_FIRST, *CHANNELS_LAST)):
                self._hooks.append(each.register_forward_hook(self._note_layout))
        if last is not None:
            self._hooks.append(last.register_forward_pre_hook(self._keep_features))

    def begin_batch(self) -> None:
        """Forget what belongs to one pass: calls of each module, and the latest layer."""
        self._calls: dict[str, int] = {}
        self._axis: int | None = None
        self._heads = 0

    def end(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def dead_units(self) -> float | None:
        """Return the share of units that were off in all rows."""
        if not (self._extremes and self._is_clear) or self._rows < 2:
            return None
        dead = number = 0
        for key, (low, high) in self._extremes.items():
            if not (low.isfinite() & high.isfinite()).all():
                return None
            off = (low == 0) & (high == 0) if self._is_exact[key] else high - low <= CONSTANT
            dead, number = dead + int(off.sum()), number + off.numel()
        return dead / number

    def all_features(self) -> Tensor | None:
        """Return the features of all rows, `(N, F)`; None if the model's features have another shape."""
        if not self._has_features or len({each.shape[1] for each in self._features}) != 1:
            return None
        features = torch.cat(self._features)
        return features if len(features) > 1 else None

    def _note_layout(self, module: nn.Module, _: Any, output: Any) -> None:
        self._axis = 1 if isinstance(module, CHANNELS_FIRST) else -1

    def _keep_features(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._heads += 1
        features = arguments[0] if arguments else None
        if self._heads > 1 or not isinstance(features, Tensor) or features.ndim != 2:
            self._has_features = False
            return
        self._features.append(features.detach().cpu())

    def _observer(self, name: str, module: nn.Module) -> Any:
        def observe(_: nn.Module, __: Any, output: Any) -> None:
            if self._heads:  # after the last linear layer: these are no hidden units
                return
            number = self._calls[name] = self._calls.get(name, 0) + 1
            key = name, number
            axis = -1 if isinstance(output, Tensor) and output.ndim == 2 else self._axis
            if not isinstance(output, Tensor) or output.ndim < 2 or axis is None:
                self._is_clear = False
                return
            if key == next(iter(self._extremes), key):
                self._rows += output.shape[0]
            rest = [each for each in range(output.ndim) if each != axis % output.ndim]
            low, high = output.amin(rest), output.amax(rest)
            if key in self._extremes:
                old_low, old_high = self._extremes[key]
                if old_low.shape != low.shape:
                    self._is_clear = False
                    return
                low, high = torch.minimum(low, old_low), torch.maximum(high, old_high)
            self._extremes[key] = low, high
            self._is_exact[key] = isinstance(module, EXACT)

        return observe
