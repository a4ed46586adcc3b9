"""`renate.models.renate_module`: the base class of models, and a wrapper of other modules."""

from torch import nn

from renate_stages import models
from renate_stages.models import RenateModule

__all__ = ["RenateModule", "RenateWrapper"]


class RenateWrapper(models.RenateWrapper):
    """Wraps any `nn.Module` as a `RenateModule`; see the class of that name in our models.

    Args:
        torch_model: The module.
    """

    def __init__(self, torch_model: nn.Module) -> None:
        super().__init__(torch_model)
