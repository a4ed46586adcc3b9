"""Continual normalization in place of batch norm (Pham, Liu & Hoi, "Continual Normalization: Rethinking
Batch Normalization for Online Continual Learning", ICLR 2022)."""

from __future__ import annotations

from math import gcd

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from renate_stages.errors import ModelArgumentError, ModelMismatchError


class ContinualNorm(nn.Module):
    """Group norm without weights, and then batch norm: `BN(GN(x))`.

    Group norm makes the running statistics depend less on the newest data. It has no parameters, so
    weights and statistics are those of the batch norm.

    Args:
        norm: The batch norm.
        num_groups: Number of groups of channels, which divides the number of channels.
    """

    def __init__(self, norm: _BatchNorm, num_groups: int) -> None:
        super().__init__()
        self.norm, self.num_groups = norm, num_groups

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized `(B, C, ...)`."""
        return self.norm(F.group_norm(x, self.num_groups, eps=self.norm.eps))

    def extra_repr(self) -> str:
        return f"num_groups={self.num_groups}"


def use_continual_norm(model: nn.Module, num_groups: int = 32) -> int:
    """Put group norm before every batch norm of a model, at any depth.

        model = torchvision.models.resnet18(num_classes=10)
        use_continual_norm(model)  # in model_fn, before weights are loaded

    In the state dict, `.norm` is added to the names of batch norms. Calling it twice changes nothing.

    Args:
        model: The model, which is changed; its weights and statistics stay.
        num_groups: Largest number of groups, >= 1; 32 in the paper. A layer gets the largest number
            that divides both this and its channels.

    Returns:
        The number of batch norms.

    Raises:
        ModelArgumentError: If `num_groups` is below 1.
        ModelMismatchError: If the model has no batch norm.
    """
    name = type(model).__name__
    if isinstance(num_groups, bool) or not isinstance(num_groups, int) or num_groups < 1:
        raise ModelArgumentError(name, "num_groups", num_groups, "a whole number, at least 1")
    found = 0
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                found += 1
                if not isinstance(parent, ContinualNorm):
                    groups = gcd(num_groups, child.num_features)
                    setattr(parent, child_name, ContinualNorm(child, groups))
    if not found:
        raise ModelMismatchError(
            f"{name} has no batch norm that continual normalization could follow",
            "do not call use_continual_norm for it",
        )
    return found
