"""Extract the features before a model's last layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import ModelMismatchError
from renate_stages.models.module import RenateModule, unwrap


def backbone_of(model: RenateModule) -> nn.Module:
    """Return the model's submodule `features`, whose output goes into the last layer.

    Raises:
        ModelMismatchError: If it has none.
    """
    backbone = getattr(unwrap(model), "features", None)
    if not isinstance(backbone, nn.Module):
        raise ModelMismatchError(
            f"this learner works on features, but {type(unwrap(model)).__name__} has no submodule "
            "`features`",
            "name the part before the last layer `features` and that layer `head`, as the models "
            "of renate_stages.models do, or choose another learner",
        )
    return backbone


def features_of(model: RenateModule, inputs: Any, task_id: str) -> Tensor:
    """Return the features of a batch, in evaluation mode and without gradients.

    They are the output of the model's submodule `features`, as the reference models have it; of a
    model without one, its outputs.

    Args:
        model: Is in the same mode afterwards as before.
        inputs: A batch as the model takes it, on the CPU.
        task_id: Task whose parameters are used.

    Raises:
        ModelMismatchError: If they are no tensor.

    Returns:
        float32 `(B, d)`, on the CPU.
    """
    backbone = getattr(unwrap(model), "features", None)
    kept: list[Any] = []
    hook = None
    if isinstance(backbone, nn.Module):
        hook = backbone.register_forward_hook(lambda _, __, output: kept.append(output))
    training = model.training
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            outputs = model.eval()(_moved(inputs, device), task_id=task_id)
    finally:
        model.train(training)
        if hook is not None:
            hook.remove()
    found = kept[-1] if kept else outputs
    if not isinstance(found, Tensor):
        raise ModelMismatchError(
            f"memory_policy herding needs features, but the model returns {type(found).__name__}",
            "give it a submodule `features`, or choose another memory_policy",
        )
    return found.flatten(1).float().cpu()


def head_inputs_of(model: RenateModule, inputs: Any, task_id: str) -> Tensor | None:
    """Return what goes into the model's submodule `head`, in evaluation mode, without gradients.

    Computed in full precision, also where training uses less.

    Args:
        model: Is in evaluation mode afterwards.
        inputs: A batch, on the model's device.
        task_id: Task whose parameters are used.

    Returns:
        `(B, F)`; None if the model does not call its head with one tensor of two dimensions.
    """
    kept: list[Any] = []
    head = unwrap(model).get_submodule("head")
    hook = head.register_forward_pre_hook(lambda _, arguments: kept.append(arguments))
    device = next(model.parameters()).device
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            model.eval()(inputs, task_id=task_id)
    finally:
        hook.remove()
    found = kept[0][0] if len(kept) == 1 and len(kept[0]) == 1 else None
    return found if isinstance(found, Tensor) and found.ndim == 2 else None


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: of their names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, dict):
        return {key: _moved(child, device) for key, child in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_moved(child, device) for child in tree)
    return tree.to(device)
