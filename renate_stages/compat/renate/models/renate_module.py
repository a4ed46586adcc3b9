"""`renate.models.renate_module`: the base class of models, and a wrapper of other modules."""

from renate_stages.models import RenateModule, RenateWrapper

__all__ = ["RenateModule", "RenateWrapper"]
