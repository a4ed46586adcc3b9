"""`renate.models`: the base class of models."""

from renate_stages.compat.renate.models.renate_module import RenateModule, RenateWrapper

__all__ = ["RenateModule", "RenateWrapper"]
