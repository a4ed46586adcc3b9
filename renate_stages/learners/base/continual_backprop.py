"""Continual backpropagation: reinitialize the least useful hidden units while training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from renate_stages.data.ranks import ranks
from renate_stages.errors import InvalidHyperparameterError, ModelMismatchError
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.base.unit_layers import Layer, hidden_units

NAME = "replacement_rate"


class ContinualBackprop(LossComponent):
    """Reinitializes units of low utility after each step; adds nothing to the loss.

        u <- decay u + (1 - decay) mean |h| * sum over outgoing weights of |w|

    Dohare et al., "Loss of plasticity in deep continual learning", Nature 2024, Algorithm 1. h is the
    unit's output for the step's examples (and positions, for the channels of a convolution); if a step
    runs several batches through the model, it is the mean of their means. Of the
    units older than `maturity` steps, a share of `rate` in each layer is replaced at each step, those
    with the lowest utility first; fractions add up over the steps. Incoming weights are drawn as
    PyTorch initializes a layer, from U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)); bias and outgoing
    weights become 0, and so do the optimizer's running averages of all of them. Utility and age start
    from 0. Adam's number of steps belongs to a whole tensor and stays.

    Utilities and ages are kept for the next update, in which the units do not become young again.

    Args:
        rate: rho in [0, 1], the share of mature units to replace at a step.
        maturity: Steps before a unit may be replaced, >= 1.
        decay: Weight of the previous utility, in [0, 1).
    """

    replays = False
    survives = True
    draws: Tensor  # the state of the generator of new weights

    def __init__(self, rate: float, maturity: int, decay: float) -> None:
        super().__init__(weight=0)
        self.rate = in_range(NAME, rate, 0, 1)
        self.maturity = positive("maturity_threshold", maturity)
        self.decay = in_range("utility_decay", decay, 0, 1, below=True)
        self._layers: list[Layer] = []
        self._hooks: list[RemovableHandle] = []
        self._seen: dict[int, list[Tensor]] = {}  # mean |h| of each pass since the last step

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        return new.outputs.new_zeros(())

    def start_update(self, learner: Any) -> None:
        self._refuse(learner)
        self._is_new = learner.warm_start.reinitialize == "all" or any(
            each.starts_anew for each in learner.parts
        )
        trained = {id(each) for each in learner.trained_parameters()}
        self._layers = hidden_units(learner.model, trained)
        self.register_buffer("draws", learner.context.generators.torch("new units").get_state())
        for place, layer in enumerate(self._layers):
            zeros = torch.zeros(layer.number, device=layer.incoming.weight.device)
            self.register_buffer(f"utility/{place}", zeros.clone())
            self.register_buffer(f"age/{place}", zeros.clone())
            self.register_buffer(f"due/{place}", torch.zeros((), dtype=torch.float64))

    def restore(self, left: Mapping[str, Tensor]) -> bool:
        return self._is_new or super().restore(left)  # utilities belong to the parent's units

    def start_training(self, learner: Any) -> None:
        """Observe the units; called when nothing copies the model any more, hooks included."""
        for place, layer in enumerate(self._layers):
            hook = layer.activation.register_forward_hook(self._observer(place))
            self._hooks.append(hook)

    def end_training(self, learner: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @torch.no_grad()
    def after_step(self, learner: Any) -> None:
        for place, layer in enumerate(self._layers):
            if not (seen := self._seen.pop(place, None)):
                continue
            utility, age, due = (
                self.get_buffer(f"{each}/{place}") for each in ("utility", "age", "due")
            )
            now = torch.stack(seen).mean(0) * layer.outgoing_sums()
            utility.lerp_(now.to(utility), 1 - self.decay)
            age += 1
            mature = age > self.maturity
            due += self.rate * int(mature.sum())
            number = int(due)
            if number:
                due -= number
                order = utility.masked_fill(~mature, torch.inf).argsort(stable=True)
                self._replace(layer, order[:number], learner.optimizers_in_use)
                utility[order[:number]] = 0
                age[order[:number]] = 0

    def _replace(
        self, layer: Layer, units: Tensor, optimizers: Iterable[torch.optim.Optimizer]
    ) -> None:
        generator = torch.Generator()
        generator.set_state(self.draws.cpu())
        weight, bias = layer.incoming.weight, layer.incoming.bias
        shape = (len(units), *weight.shape[1:])
        bound = weight[0].numel() ** -0.5
        drawn = (2 * torch.rand(shape, generator=generator) - 1) * bound
        self.draws.copy_(generator.get_state())
        weight[units] = drawn.to(weight)
        layer.outgoing_of(layer.outgoing.weight)[:, units] = 0
        if bias is not None:
            bias[units] = 0
        for optimizer in optimizers:
            for own in (weight,) if bias is None else (weight, bias):
                for value in _like(optimizer.state.get(own, {}), own):
                    value[units] = 0
            for value in _like(
                optimizer.state.get(layer.outgoing.weight, {}), layer.outgoing.weight
            ):
                layer.outgoing_of(value)[:, units] = 0

    def _observer(self, place: int) -> Callable[..., None]:
        def observe(module: nn.Module, _: Any, output: Tensor) -> None:
            if module.training:  # not when the model is measured
                if isinstance(self._layers[place].incoming, nn.Linear) and output.ndim != 2:
                    raise ModelMismatchError(
                        "continual backprop needs one vector of units per example, and an "
                        f"activation after a linear layer returns {tuple(output.shape)}",
                        f"set hyperparameters.{NAME} to 0",
                    )
                rest = [each for each in range(output.ndim) if each != 1]
                mean = output.detach().float().abs().mean(rest)
                self._seen.setdefault(place, []).append(mean)

        return observe

    def _refuse(self, learner: Any) -> None:
        """Refuse settings with which units would be replaced wrongly.

        Raises:
            InvalidHyperparameterError: If there is such a setting.
        """
        following = [type(each).__name__ for each in learner.parts if each.follows_steps]
        reasons = {
            "with several processes, which would replace different units": ranks().count > 1,
            "with trainer.compile": learner.context.trainer.compile,
            "with ema_decay, which would average old and new units": bool(learner.ema_decay),
            f"with {type(learner).__name__}, which follows the path of each weight": following,
            f"with {type(learner).__name__}, which takes no gradient steps": (
                not learner.continues_training
            ),
        }
        for reason, applies in reasons.items():
            if applies:
                raise InvalidHyperparameterError(NAME, self.rate, f"0 {reason}")


def _like(state: dict[str, Any], parameter: Tensor) -> list[Tensor]:
    """Return the tensors of an optimizer's state that have a value for each weight."""
    return [v for v in state.values() if isinstance(v, Tensor) and v.shape == parameter.shape]
