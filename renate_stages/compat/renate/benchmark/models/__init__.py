"""`renate.benchmark.models`: models with a head for each task."""

from renate_stages.compat.renate.benchmark.models.mlp import MultiLayerPerceptron, RenateMLP
from renate_stages.compat.renate.benchmark.models.resnet import RenateResNet18CIFAR, ResNet18CIFAR
from renate_stages.compat.renate.missing import refuse

__all__ = ["MultiLayerPerceptron", "RenateMLP", "RenateResNet18CIFAR", "ResNet18CIFAR"]

_OF_TORCHVISION = "wrap a model of torchvision: RenateWrapper(torchvision.models.{}(...))"
_OF_TRANSFORMERS = "wrap a model of transformers in a RenateModule of your own"

__getattr__ = refuse(
    __name__,
    {
        **{
            name: _OF_TORCHVISION.format(name.removesuffix("CIFAR").lower())
            for name in ("ResNet18", "ResNet34", "ResNet50", "ResNet34CIFAR", "ResNet50CIFAR")
        },
        **{
            f"VisionTransformer{size}": _OF_TRANSFORMERS
            for size in ("B16", "B32", "CIFAR", "H14", "L16", "L32")
        },
        **dict.fromkeys(
            ("LearningToPromptTransformer", "PromptedTransformer", "SPromptTransformer"),
            "use RanPAC, SLDA or NCM with a frozen, pretrained model",
        ),
    },
)
