"""What learners are built of: the frame of all, components of losses, replay, statistics."""

from renate_stages.learners.base.learner import NOTHING, Learner, hyperparameters_of

__all__ = ["NOTHING", "Learner", "hyperparameters_of"]
