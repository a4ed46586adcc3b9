"""`renate.training`: run an update."""

from renate_stages.compat.renate.training.training import run_training_job

__all__ = ["run_training_job"]
