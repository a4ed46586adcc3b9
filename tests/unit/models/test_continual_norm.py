"""Continual normalization: its values, and replacing the batch norms of a model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from renate_stages.errors import ModelArgumentError, ModelMismatchError
from renate_stages.models import MLP, ResNet18, use_continual_norm
from renate_stages.models.continual_norm import ContinualNorm


def by_hand(x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Normalize each group of each example, and then each channel over all examples."""
    parts = x.reshape(len(x), groups, -1)
    mean, variance = parts.mean(2, keepdim=True), parts.var(2, keepdim=True, unbiased=False)
    grouped = ((parts - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
    mean = grouped.mean((0, 2, 3), keepdim=True)
    variance = grouped.var((0, 2, 3), keepdim=True, unbiased=False)
    normal = (grouped - mean) / (variance + 1e-5).sqrt()
    return normal * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


@pytest.mark.parametrize(("channels", "groups"), [(6, 6), (64, 32), (48, 16)])
def test_values_are_those_of_group_norm_and_then_batch_norm(channels, groups):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(channels))
    nn.init.normal_(model[0].weight)
    nn.init.normal_(model[0].bias)
    x = 3 + 2 * torch.randn(4, channels, 5, 5)
    expected = by_hand(x, groups, model[0].weight, model[0].bias)
    assert use_continual_norm(model, 32 if channels != 6 else 6) == 1
    assert isinstance(model[0], ContinualNorm) and model[0].num_groups == groups
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_all_batch_norms_of_a_deep_model_are_replaced_once_and_keep_their_tensors():
    model = ResNet18(num_outputs=3, width=4)
    tensors = {name: each for name, each in model.state_dict().items() if name != "_extra_state"}
    count = sum(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    assert use_continual_norm(model) == use_continual_norm(model) == count == 20
    now = model.state_dict()
    for name, each in tensors.items():
        part, _, last = name.rpartition(".")
        renamed = name if name in now else f"{part}.norm.{last}"
        assert torch.equal(now[renamed], each), name
    assert len(now) == len(tensors) + 1
    model(torch.rand(2, 3, 16, 16)).sum().backward()


def test_resnet_with_continual_norm_is_rebuilt_from_its_state():
    torch.manual_seed(0)
    model = ResNet18(num_outputs=3, width=4, normalization="continual")
    model(torch.rand(4, 3, 16, 16))  # changes running statistics
    model.eval()
    again = ResNet18.from_state_dict(copy.deepcopy(model.state_dict())).eval()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(x), again(x))
    assert "normalization" not in str(ResNet18(num_outputs=3, width=4).get_extra_state())
    with pytest.raises(ModelArgumentError, match="'batch' or 'continual'"):
        ResNet18(num_outputs=3, normalization="layer")


def test_model_without_batch_norm_and_a_wrong_number_of_groups_are_refused():
    with pytest.raises(ModelMismatchError, match="MLP has no batch norm"):
        use_continual_norm(MLP(4, 2))
    with pytest.raises(ModelArgumentError, match="num_groups"):
        use_continual_norm(nn.Sequential(nn.BatchNorm1d(4)), 0)
