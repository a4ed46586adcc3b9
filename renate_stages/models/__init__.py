"""Models: the base class, and small reference models. Needs only torch."""

from renate_stages.models.cnn import SmallCNN
from renate_stages.models.continual_norm import use_continual_norm
from renate_stages.models.mlp import MLP
from renate_stages.models.module import RenateModule, RenateWrapper, unwrap
from renate_stages.models.resnet import ResNet18

__all__ = [
    "MLP",
    "RenateModule",
    "RenateWrapper",
    "ResNet18",
    "SmallCNN",
    "unwrap",
    "use_continual_norm",
]
