"""A small convolutional network for small images."""

from __future__ import annotations

from math import gcd

from torch import nn

from renate_stages.models.feature_classifier import FeatureClassifier, Heads, check_positive


class SmallCNN(FeatureClassifier):
    """Three 3×3 convolutions, the last two with stride 2, and global average pooling.

        SmallCNN(num_channels=1, num_outputs=10)(torch.rand(32, 1, 28, 28))  # (32, 10)

    Takes images (B, num_channels, H, W), float, of any size; meant for 8×8 to 32×32. It uses group
    norm instead of batch norm, because the running statistics of batch norm would follow the newest
    data and change the predictions for old data (Pham et al., "Continual Normalization", ICLR
    2022). It uses strides instead of pooling, because the gradients of some pooling layers are not
    deterministic on a GPU.

    Args:
        num_channels: 1 for grey, 3 for colour.
        num_outputs: Number of classes, or of values in a regression.
        width: Channels of the first convolution; the others have 2 and 4 times as many. 32 makes
            94,000 parameters.
        heads: One head for all tasks (`shared`) or one for each (`per_task`).
        random_features: Number of random features before a shared head; 0: none.
        nearest_mean: Whether a shared head predicts the nearest class mean; see `NearestMeanHead`.

    Raises:
        ModelArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_channels: int,
        num_outputs: int,
        width: int = 32,
        heads: Heads = "shared",
        random_features: int = 0,
        nearest_mean: bool = False,
    ) -> None:
        check_positive("SmallCNN", num_channels=num_channels, width=width)
        super().__init__(
            constructor_arguments={
                "num_channels": num_channels,
                "num_outputs": num_outputs,
                "width": width,
                "heads": heads,
            },
            features=nn.Sequential(
                _block(num_channels, width, stride=1),  # (B, w, H, W)
                _block(width, 2 * width, stride=2),  # (B, 2w, H/2, W/2)
                _block(2 * width, 4 * width, stride=2),  # (B, 4w, H/4, W/4)
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),  # (B, 4w)
            ),
            num_features=4 * width,
            num_outputs=num_outputs,
            heads=heads,
            random_features=random_features,
            nearest_mean=nearest_mean,
        )

    def layers_to_distil(self) -> list[nn.Module]:
        return [layer for layer in self.features.children() if isinstance(layer, nn.Sequential)]


def _block(channels: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(gcd(8, width), width),
        nn.ReLU(),
    )
