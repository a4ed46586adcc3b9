"""`renate.benchmark.models`: models with a head for each task."""

from renate_stages.compat.renate.benchmark.models.mlp import MultiLayerPerceptron, RenateMLP
from renate_stages.compat.renate.benchmark.models.resnet import RenateResNet18CIFAR, ResNet18CIFAR
from renate_stages.compat.renate.missing import MODELS, refuse

__all__ = ["MultiLayerPerceptron", "RenateMLP", "RenateResNet18CIFAR", "ResNet18CIFAR"]

__getattr__ = refuse(__name__, MODELS)
