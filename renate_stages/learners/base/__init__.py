"""Building blocks of learners: base classes, loss components, replay and class statistics."""

from renate_stages.learners.base.learner import NOTHING, Learner, hyperparameters_of

__all__ = ["NOTHING", "Learner", "hyperparameters_of"]
