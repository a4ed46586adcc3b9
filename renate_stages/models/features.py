"""Extract the features that enter a model's last layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import ModelMismatchError
from renate_stages.models.growing_embedding import GrowingEmbedding
from renate_stages.models.growth import output_layer
from renate_stages.models.modes import evaluating
from renate_stages.models.module import RenateModule, unwrap


def backbone_of(model: RenateModule) -> nn.Module:
    """Return the model's submodule `features`, whose output enters the last layer.

    Raises:
        ModelMismatchError: If the model has no such submodule.
    """
    backbone = getattr(unwrap(model), "features", None)
    if not isinstance(backbone, nn.Module):
        raise ModelMismatchError(
            f"this learner needs features, but {type(unwrap(model)).__name__} has no submodule "
            "`features`",
            "name the part before the last layer `features` and that layer `head`, as in the models "
            "of renate_stages.models, or choose another learner",
        )
    return backbone


def features_of(model: RenateModule, inputs: Any, task_id: str) -> Tensor:
    """Return the features of a batch, in evaluation mode and without gradients.

    These are the outputs of the model's submodule `features`, which the reference models have. If a
    model has none, its own outputs are returned.

    Args:
        model: The model; its mode is restored.
        inputs: A batch on the CPU, in the form that the model takes.
        task_id: Task whose parameters are used.

    Raises:
        ModelMismatchError: If the outputs are not a tensor.

    Returns:
        Features `(B, d)`, float32, on the CPU.
    """
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        features = _called(model, _moved(inputs, device), task_id)
    if not isinstance(features, Tensor):
        raise ModelMismatchError(
            f"memory_policy herding needs features, but the model returns {type(features).__name__}",
            "give it a submodule `features`, or choose another memory_policy",
        )
    return features.flatten(1).float().cpu()


def features_before_head(model: RenateModule, inputs: Any, task_id: str) -> Tensor | None:
    """Return what enters a model's last layer, in evaluation mode and without gradients.

    These are the outputs of the model's submodule `features` or, if it has none, the inputs of its last
    layer (`growth.output_layer`).

    Args:
        model: The model; its mode is restored.
        inputs: A batch on the CPU, in the form that the model takes.
        task_id: Task whose parameters are used.

    Returns:
        Features `(B, d)`, float32, on the CPU; None if the model has neither, or does not call its last
        layer once with one tensor `(B, d)`.
    """
    if isinstance(getattr(unwrap(model), "features", None), nn.Module):
        return features_of(model, inputs, task_id)
    head = output_layer(unwrap(model))
    if head not in dict(unwrap(model).named_modules()):
        return None
    with evaluating(model):
        moved = _moved(inputs, next(model.parameters()).device)
        features = head_inputs_of(model, moved, task_id, str(head))
    return None if features is None else features.float().cpu()


def batch_features(model: RenateModule, inputs: Any, task_id: str) -> Tensor:
    """Return the features of a batch in the model's current mode, `(B, d)`, float32.

    Args:
        model: The model, which has a submodule `features`; see `backbone_of`.
        inputs: A batch on the model's device.
        task_id: Task whose parameters are used.
    """
    return _called(model, inputs, task_id).flatten(1).float()


def _called(model: RenateModule, inputs: Any, task_id: str) -> Any:
    """Call the model, and return the output of its submodule `features`, or its own without one."""
    backbone = getattr(unwrap(model), "features", None)
    if not isinstance(backbone, nn.Module):
        return model(inputs, task_id=task_id)
    kept: list[Any] = []
    hook = backbone.register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        outputs = model(inputs, task_id=task_id)
    finally:
        hook.remove()
    return kept[-1] if kept else outputs


def hook_layers(model: RenateModule) -> None:
    """Cache outputs of layers, unless the user has registered caching hooks.

    Layers are those that the model's `layers_to_distil` returns, as the reference models do.

    Args:
        model: The model.

    Raises:
        ModelMismatchError: If the model names no layers.
    """
    if model.has_hooks:
        return
    layers = getattr(unwrap(model), "layers_to_distil", list)()
    for layer in layers:
        model.register_intermediate_representation_caching_hook(layer)
    if not layers:
        name = type(unwrap(model)).__name__
        raise ModelMismatchError(
            f"this learner distils the outputs of layers, but {name} names none",
            "in model_fn, call model.register_intermediate_representation_caching_hook(LAYER) for "
            "each layer, such as model.layer1; put RenateWrapper around a module of torch first",
        )


def head_inputs_of(
    model: RenateModule, inputs: Any, task_id: str, name: str = "head"
) -> Tensor | None:
    """Return the inputs of the model's last layer, in evaluation mode, without gradients.

    They are computed in full precision, even if training uses less.

    Args:
        model: The model; it stays in evaluation mode.
        inputs: A batch on the model's device.
        task_id: Task whose parameters are used.
        name: Name of the submodule that is the last layer.

    Returns:
        Features `(B, F)`; None unless the model calls its head once with one 2-dimensional tensor.
    """
    kept: list[Any] = []
    head = unwrap(model).get_submodule(name)
    hook = head.register_forward_pre_hook(lambda _, arguments: kept.append(arguments))
    device = next(model.parameters()).device
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            model.eval()(inputs, task_id=task_id)
    finally:
        hook.remove()
    features = kept[0][0] if len(kept) == 1 and len(kept[0]) == 1 else None
    return features if isinstance(features, Tensor) and features.ndim == 2 else None


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def without_growth(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a module's tensors, those of embeddings without the rows that only their growth has added.

    Such rows do not change any output, so digests of what a model computes leave them out.

    Args:
        module: The module.
        tensors: Some of its tensors, by their names in it.
    """
    settled = {
        f"{name}.weight": child.without_untrained_rows()
        for name, child in module.named_modules()
        if isinstance(child, GrowingEmbedding)
    }
    return {name: settled.get(name, each) for name, each in tensors.items()}


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, dict):
        return {key: _moved(child, device) for key, child in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_moved(child, device) for child in tree)
    return tree.to(device)
