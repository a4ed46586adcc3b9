"""Give a model more outputs for new labels, without changing those that it has.

An embedding grows by the same means for new codes, see `GrowingEmbedding`. A head of your own can grow if it has the attribute `num_outputs` and the method
`grow_outputs(number)`, which adds outputs at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import OutputLayerError
from renate_stages.models.growing_embedding import GrowingEmbedding

HEAD = "head"
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # tolerance of old outputs after growth: sums may be reordered


def output_layer(module: nn.Module) -> str | None:
    """Return the name of the submodule that computes a model's outputs.

    It is what the model's attribute `output_layer` names, or else its submodule `head`, or else the
    last linear layer in the order of definition. It is never an embedding.

    Args:
        module: The model, without a wrapper.

    Returns:
        The name; None if there is no such layer.
    """
    declared = getattr(module, "output_layer", None)
    if isinstance(declared, str):
        return declared
    names = [name for name, child in module.named_modules() if _computes_outputs(child)]
    return HEAD if HEAD in names else names[-1] if names else None


def outputs_of(layer: nn.Module) -> int:
    """Return the number of outputs of a linear layer or a head, or of rows of an embedding."""
    return layer.out_features if isinstance(layer, nn.Linear) else int(layer.num_outputs)  # type: ignore


def grow_layer(layer: nn.Module, number: int) -> None:
    """Give a layer more outputs; the weights of those it has keep their bits.

    New rows of a linear layer get PyTorch's initialisation, from the global generator.

    Args:
        layer: A linear layer, or a head or an embedding with `grow_outputs`.
        number: Number of outputs after it, at least as many as before.
    """
    if not isinstance(layer, nn.Linear):
        layer.grow_outputs(number)  # type: ignore[operator]
        return
    fresh = nn.Linear(layer.in_features, number, layer.bias is not None)
    for name, old in list(layer.named_parameters(recurse=False)):
        rows = getattr(fresh, name).detach().to(old.device, old.dtype)
        rows[: layer.out_features] = old.detach()
        setattr(layer, name, nn.Parameter(rows, old.requires_grad))
    layer.out_features = number


def can_grow(layer: nn.Module) -> bool:
    """Return whether a layer is a linear one, or has `num_outputs` and `grow_outputs`."""
    own = callable(getattr(layer, "grow_outputs", None)) and hasattr(layer, "num_outputs")
    return type(layer) is nn.Linear or own


def _computes_outputs(layer: nn.Module) -> bool:
    return can_grow(layer) and not isinstance(layer, GrowingEmbedding)


def is_growth(value: Any) -> bool:
    """Return whether a value read from a file is what `RenateModule.grown` returns."""
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(outputs, list)
        and [type(each) for each in outputs] == [int, int]
        and 0 < outputs[0] < outputs[1]
        for name, outputs in value.items()
    )


def ensure_outputs(
    module: nn.Module,
    number: int,
    outputs_for: Callable[[], Tensor],
    grow: Callable[[str, int], None],
) -> int:
    """Let a model grow if it has fewer outputs than needed, and check that old outputs are equal.

    Args:
        module: The model, without a wrapper.
        number: Number of outputs needed.
        outputs_for: Runs the model on a few examples; returns `(B, ..., K)`.
        grow: Gives the layer of a name more outputs.

    Returns:
        K, the number of outputs before.

    Raises:
        OutputLayerError: If the model cannot grow.
    """
    before = outputs_for()
    name = type(module).__name__
    known = before.shape[-1]
    if known >= number:
        return known
    layer = output_layer(module)
    if layer is None or not _has(module, layer):
        what = "it has no linear layer" if layer is None else f"it has no submodule `{layer}`"
        raise OutputLayerError(name, known, number, what)
    child = module.get_submodule(layer)
    if not _computes_outputs(child):
        reason = f"its layer `{layer}` is a {type(child).__name__}"
        raise OutputLayerError(name, known, number, reason)
    if outputs_of(child) != known:
        reason = f"its last layer `{layer}` has {outputs_of(child)} outputs, not those of the model"
        raise OutputLayerError(name, known, number, reason)
    if _is_shared(module, child):
        reason = f"its layer `{layer}` shares its weights with another layer"
        raise OutputLayerError(name, known, number, reason)
    grow(layer, number)
    after = outputs_for()
    same = after.shape[-1] == number and torch.allclose(
        after[..., :known], before, RELATIVE, ABSOLUTE, equal_nan=True
    )
    if not same:
        reason = f"its outputs are not simply those of its layer `{layer}`"
        raise OutputLayerError(name, known, number, reason)
    return known


def _has(module: nn.Module, name: str) -> bool:
    return any(name == each for each, _ in module.named_modules())


def _is_shared(module: nn.Module, layer: nn.Module) -> bool:
    """Return whether another module of the model has one of the layer's own parameters."""
    own = {id(parameter) for parameter in layer.parameters()}
    inside = {id(child) for child in layer.modules()}
    return any(
        id(parameter) in own
        for child in module.modules()
        if id(child) not in inside
        for parameter in child.parameters(recurse=False)
    )
