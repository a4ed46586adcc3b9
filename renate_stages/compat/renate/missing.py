"""Names of Renate that have no counterpart: importing one says what to use instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from renate_stages.errors import NoCounterpartError

_OF_TORCHVISION = "wrap a model of torchvision: RenateWrapper(torchvision.models.{}(...))"
_OF_TRANSFORMERS = "wrap a model of transformers in a RenateModule of your own"
_PROMPTS = "use RanPAC, SLDA or NCM with a frozen, pretrained model"
MODELS = {
    **{
        name: _OF_TORCHVISION.format(name.removesuffix("CIFAR").lower())
        for name in ("ResNet18", "ResNet34", "ResNet50", "ResNet34CIFAR", "ResNet50CIFAR")
    },
    **{
        f"VisionTransformer{size}": _OF_TRANSFORMERS
        for size in ("", "B16", "B32", "CIFAR", "H14", "L16", "L32")
    },
    "HuggingFaceSequenceClassificationTransformer": _OF_TRANSFORMERS,
    **dict.fromkeys(
        ("LearningToPromptTransformer", "PromptedTransformer", "SPromptTransformer"), _PROMPTS
    ),
}
"""What to use instead of Renate's models, by name."""


def refuse(module: str, instead: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that refuses these names.

    Args:
        module: The module's name.
        instead: What to do instead, by name.
    """

    def getattribute(name: str) -> Any:
        if name in instead:
            raise NoCounterpartError(f"{module}.{name}", instead[name])
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattribute
