"""`renate.benchmark.models.spromptmodel`: S-Prompts, which have no counterpart."""

from renate_stages.compat.renate.missing import MODELS, refuse

__getattr__ = refuse(__name__, MODELS)
