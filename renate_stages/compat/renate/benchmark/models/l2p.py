"""`renate.benchmark.models.l2p`: Learning to Prompt, which has no counterpart."""

from renate_stages.compat.renate.missing import MODELS, refuse

__getattr__ = refuse(__name__, MODELS)
