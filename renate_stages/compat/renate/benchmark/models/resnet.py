"""`renate.benchmark.models.resnet`: ResNet-18 for small images."""

from __future__ import annotations

from typing import Any

from torch import nn

from renate_stages.compat.renate.benchmark.models.base import RenateBenchmarkingModule
from renate_stages.compat.renate.missing import MODELS, refuse
from renate_stages.errors import ModelArgumentError
from renate_stages.models.feature_classifier import Heads
from renate_stages.models.resnet import BasicBlock, ResNet18

WIDTH = 64

__getattr__ = refuse(__name__, MODELS)


class ResNet18CIFAR(RenateBenchmarkingModule):
    """ResNet-18 with a first convolution of 3x3 and stride 1, for images such as CIFAR's.

    Args:
        num_outputs: Number of outputs.
        gray_scale: Whether images have one channel instead of three.
        prediction_strategy: Must be None.
        add_icarl_class_means: See `RenateBenchmarkingModule`.
        heads: See `RenateBenchmarkingModule`.
        nearest_mean: Set by the learner iCaRL.
        random_features: Set by the learner RanPAC.
        **others: Renate's arguments that change the network; refused.

    Raises:
        ModelArgumentError: If an argument is refused or outside its range.
    """

    def __init__(
        self,
        num_outputs: int = 10,
        gray_scale: bool = False,
        prediction_strategy: object = None,
        add_icarl_class_means: bool = True,
        heads: Heads = "per_task",
        nearest_mean: bool = False,
        random_features: int = 0,
        **others: Any,
    ) -> None:
        for argument, value in others.items():
            expected = "no such argument; wrap a ResNet of torchvision with RenateWrapper"
            raise ModelArgumentError("ResNet18CIFAR", argument, value, expected)
        network = ResNet18(num_outputs, num_channels=1 if gray_scale else 3, width=WIDTH)
        super().__init__(
            8 * WIDTH,
            num_outputs,
            {"gray_scale": gray_scale},
            prediction_strategy,
            add_icarl_class_means,
            heads,
            nearest_mean,
            random_features,
        )
        self.features = network.features

    def layers_to_distil(self) -> list[nn.Module]:
        blocks = [each for each in self.features.children() if isinstance(each, BasicBlock)]
        return list(blocks[1::2])  # the last one of each stage


RenateResNet18CIFAR = ResNet18CIFAR
