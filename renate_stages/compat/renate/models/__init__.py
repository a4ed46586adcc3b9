"""`renate.models`: the base class of models."""

from renate_stages.models import RenateModule, RenateWrapper

__all__ = ["RenateModule", "RenateWrapper"]
