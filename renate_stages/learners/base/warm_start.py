"""Change the parent's weights before the first step of an update: shrink, perturb, reinitialize."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import InvalidHyperparameterError, ModelMismatchError
from renate_stages.learners.base.arguments import in_range, one_of
from renate_stages.models import RenateModule
from renate_stages.models.growth import output_layer
from renate_stages.models.module import unwrap

PARTS = ("none", "head", "all")
NAMES = ("shrink", "perturb", "reinitialize")


@dataclass(frozen=True)
class WarmStart:
    """What an update does with the parent's weights before its first step.

        theta <- shrink * theta + perturb * theta_0

    where theta_0 are the weights of a newly built model, as `model_fn` initializes it under the
    update's own seed (Ash & Adams, "On Warm-Starting Neural Network Training", NeurIPS 2020). The
    model then learns new data almost as well as a new one, and starts closer to its solution.
    It applies to all parameters that the update trains, also those of normalization layers. Buffers,
    such as running statistics, are kept.

    Args:
        shrink: Factor of the parent's weights, in (0, 1].
        perturb: Factor of the new weights, >= 0.
        reinitialize: `head` replaces the trained parameters of the last linear layer by new ones;
            `all` replaces all of them, and the buffers; `none` neither.

    Raises:
        InvalidHyperparameterError: If a value is outside its range.
    """

    shrink: float = 1.0
    perturb: float = 0.0
    reinitialize: str = "none"

    def __post_init__(self) -> None:
        if in_range("shrink", self.shrink, 0, 1) == 0:
            raise InvalidHyperparameterError("shrink", self.shrink, "a number in (0, 1]")
        in_range("perturb", self.perturb, 0)
        one_of("reinitialize", self.reinitialize, PARTS)
        if self.reinitialize == "all" and self.scales:
            allowed = "none or head with shrink or perturb, because `all` keeps none of the weights"
            raise InvalidHyperparameterError("reinitialize", self.reinitialize, allowed)

    @property
    def scales(self) -> bool:
        """Whether it shrinks or perturbs weights."""
        return self.shrink != 1 or self.perturb != 0

    @property
    def changes(self) -> bool:
        """Whether it changes any weight."""
        return self.scales or self.reinitialize != "none"

    def apply(
        self,
        model: RenateModule,
        parameters: Iterable[nn.Parameter],
        untrained: Mapping[str, Any],
    ) -> None:
        """Change a model in place.

        Args:
            model: The model.
            parameters: Parameters of the model that the update trains.
            untrained: State dict of a newly built model.

        Raises:
            ModelMismatchError: If the newly built model lacks a parameter, or the model has no last
                linear layer to reinitialize.
        """
        trained = {id(each) for each in parameters}
        named = {name: each for name, each in model.named_parameters() if id(each) in trained}
        if self.reinitialize != "none":
            anew = set(named) if self.reinitialize == "all" else _of_head(model, named)
            with torch.no_grad():
                for name in anew:
                    each = named.pop(name)
                    each.copy_(_fresh(name, each, untrained))
                if self.reinitialize == "all":
                    _copy_buffers(model, untrained)
        if self.scales:
            noise = {
                name: _fresh(name, each, untrained) if self.perturb else torch.zeros(())
                for name, each in named.items()
            }
            shrink_and_perturb(named, self.shrink, self.perturb, lambda name, _: noise[name])


@torch.no_grad()
def shrink_and_perturb(
    parameters: Mapping[str, nn.Parameter],
    shrink: float,
    perturb: float,
    noise: Callable[[str, nn.Parameter], Tensor],
) -> None:
    """Let each parameter be `shrink * parameter + perturb * noise`.

    Args:
        parameters: Parameters by name, changed in this order.
        shrink: Factor of the parameters.
        perturb: Factor of the noise.
        noise: Returns the noise of a parameter, which broadcasts to its shape.
    """
    for name, parameter in parameters.items():
        parameter.mul_(shrink).add_(noise(name, parameter).to(parameter), alpha=perturb)


def _fresh(name: str, parameter: nn.Parameter, untrained: Mapping[str, Any]) -> Tensor:
    found = untrained.get(name)
    if isinstance(found, Tensor) and found.shape == parameter.shape:
        return found
    problem = f"a newly built model has no parameter `{name}` of shape {tuple(parameter.shape)}"
    raise ModelMismatchError(
        f"{problem}, which shrink, perturb and reinitialize need",
        "let model_fn build the same parameters with and without a stored state, or remove "
        f"{', '.join(f'hyperparameters.{each}' for each in NAMES)}",
    )


def _of_head(model: RenateModule, named: Mapping[str, nn.Parameter]) -> set[str]:
    module = unwrap(model)
    layer = output_layer(module)
    own: set[int] = set()
    if layer is not None and layer in dict(module.named_modules()):
        own = {id(each) for each in module.get_submodule(layer).parameters()}
    found = {name for name, each in named.items() if id(each) in own}
    if not found:
        raise ModelMismatchError(
            f"{type(module).__name__} has no trained last linear layer, which `reinitialize: head` "
            "replaces",
            "name that layer `head`, or its name in the model's attribute `output_layer`, or set "
            "hyperparameters.reinitialize to none",
        )
    return found


def _copy_buffers(model: RenateModule, untrained: Mapping[str, Any]) -> None:
    for name, buffer in model.named_buffers():
        found = untrained.get(name)
        if isinstance(found, Tensor) and found.shape == buffer.shape:
            buffer.copy_(found)
