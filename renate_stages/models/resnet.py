"""ResNet-18 for small images (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError
from renate_stages.models.continual_norm import use_continual_norm
from renate_stages.models.feature_classifier import FeatureClassifier, Heads, check_positive


class ResNet18(FeatureClassifier):
    """ResNet-18 in the paper's variant for small images such as CIFAR's.

        ResNet18(num_outputs=10)(torch.rand(32, 3, 32, 32))  # (32, 10)

    Takes images (B, num_channels, H, W), float, of any size; meant for 16×16 to 64×64. The first
    convolution is 3×3 with stride 1, without pooling, because the 7×7 convolution and the pooling
    of the ImageNet variant would shrink 32×32 to 8×8 before the first block. Four stages of two
    blocks follow, and each of the last three halves the image. The DER paper and most results on
    class-incremental CIFAR-10 use this network.

    It uses batch norm, as in the paper. The running statistics follow the newest data, so prefer
    `normalization="continual"` or `SmallCNN` if the domain shifts a lot and the learner does not
    replay.

    Args:
        num_outputs: Number of classes, or of values in a regression.
        num_channels: 3 for colour, 1 for grey.
        width: Channels of the first stage; the others have 2, 4 and 8 times as many. 64 makes
            11,173,962 parameters for 10 outputs, and features of 512.
        heads: One head for all tasks (`shared`) or one for each (`per_task`).
        nearest_mean: Whether a shared head predicts the nearest class mean; see `NearestMeanHead`.
        normalization: `batch`, or `continual`, see `use_continual_norm`.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_outputs: int,
        num_channels: int = 3,
        width: int = 64,
        heads: Heads = "shared",
        nearest_mean: bool = False,
        normalization: Literal["batch", "continual"] = "batch",
    ) -> None:
        check_positive("ResNet18", num_channels=num_channels, width=width)
        if normalization not in ("batch", "continual"):
            expected = "'batch' or 'continual'"
            raise ModelArgumentError("ResNet18", "normalization", normalization, expected)
        arguments = {
            "num_outputs": num_outputs,
            "num_channels": num_channels,
            "width": width,
            "heads": heads,
        }
        if normalization != "batch":  # only if set, so that other states keep their old form
            arguments["normalization"] = normalization
        super().__init__(
            constructor_arguments=arguments,
            features=nn.Sequential(
                _convolution(num_channels, width),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                *_stage(width, width, stride=1),  # (B, w, H, W)
                *_stage(width, 2 * width, stride=2),  # (B, 2w, H/2, W/2)
                *_stage(2 * width, 4 * width, stride=2),  # (B, 4w, H/4, W/4)
                *_stage(4 * width, 8 * width, stride=2),  # (B, 8w, H/8, W/8)
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),  # (B, 8w)
            ),
            num_features=8 * width,
            num_outputs=num_outputs,
            heads=heads,
            nearest_mean=nearest_mean,
        )
        if normalization == "continual":
            use_continual_norm(self.features)

    def layers_to_distil(self) -> list[nn.Module]:
        blocks: list[nn.Module] = [
            each for each in self.features.children() if isinstance(each, BasicBlock)
        ]
        return blocks[1::2]  # the last one of each stage


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut: `relu(F(x) + x)` (eq. 1 and 2 of the paper).

    Args:
        channels: Channels of the input.
        width: Channels of the output; if they or the image size differ from the input's, the
            shortcut is a 1×1 convolution.
        stride: Stride of the first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(channels, width, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _convolution(width, width),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut.append(nn.Conv2d(channels, width, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H / stride, W / stride) for (B, channels, H, W)."""
        return F.relu(self.residual(x) + self.shortcut(x))


def _stage(channels: int, width: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return BasicBlock(channels, width, stride), BasicBlock(width, width, stride=1)


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
